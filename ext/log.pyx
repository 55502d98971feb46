# Log lines, composed in one buffer and written once per batch of events (reference 6).
#
# A line is `begin`, any number of `put…`, `end`. Text from a peer is added with put_escaped or put_printable; `end`
# replaces what is still not printable, so that no control character of a peer reaches a terminal (reference 6, line 1).

from posix.time cimport CLOCK_REALTIME, clock_gettime, timespec
from posix.unistd cimport write

cdef extern from "<time.h>" nogil:
    struct tm:
        int tm_year, tm_mon, tm_mday, tm_hour, tm_min, tm_sec
        long tm_gmtoff
    tm* localtime_r(const int64_t* seconds, tm* result)
    size_t strftime(char* text, size_t size, const char* form, const tm* moment)

cdef extern from "<poll.h>" nogil:
    struct pollfd:
        int fd
        short events, revents
    int poll(pollfd* fds, unsigned long count, int milliseconds)
    const short POLLOUT, POLLRDHUP

cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_mutex_t:
        pass
    ctypedef struct pthread_mutexattr_t:
        pass
    int pthread_mutexattr_init(pthread_mutexattr_t* attributes)
    int pthread_mutexattr_destroy(pthread_mutexattr_t* attributes)
    int pthread_mutexattr_setpshared(pthread_mutexattr_t* attributes, int shared)
    int pthread_mutexattr_setrobust(pthread_mutexattr_t* attributes, int robust)
    int pthread_mutex_init(pthread_mutex_t* mutex, const pthread_mutexattr_t* attributes)
    int pthread_mutex_trylock(pthread_mutex_t* mutex)
    int pthread_mutex_unlock(pthread_mutex_t* mutex)
    int pthread_mutex_consistent(pthread_mutex_t* mutex)
    const int PTHREAD_PROCESS_SHARED, PTHREAD_MUTEX_ROBUST

cdef extern from "<errno.h>" nogil:
    const int EOWNERDEAD

cdef extern from "<time.h>" nogil:
    int nanosleep(const timespec* wanted, timespec* left)
    const int CLOCK_MONOTONIC

cdef extern from "<sys/stat.h>" nogil:
    struct file_status "stat":
        uint64_t st_dev, st_ino
        uint32_t st_mode
        int64_t st_size
    int fstat(int fd, file_status* found)
    bint S_ISREG(uint32_t mode)
    bint S_ISSOCK(uint32_t mode)

cdef extern from "<unistd.h>" nogil:
    int ftruncate(int fd, int64_t size)
    int64_t lseek(int fd, int64_t offset, int whence)
    const int SEEK_CUR

cdef extern from "<sys/socket.h>" nogil:
    Py_ssize_t send(int fd, const void* data, size_t size, int flags)
    const int MSG_DONTWAIT, MSG_NOSIGNAL

cdef extern from "<string.h>" nogil:
    void* memrchr(const void* text, int character, size_t size)

cdef const char* MONTHS = "JanFebMarAprMayJunJulAugSepOctNovDec"

cdef enum:
    LOG_BUFFER_LIMIT = 1 << 20      # bytes kept while the log cannot be written; then lines are lost, and counted
    LOG_TEXT_LIMIT = 2000           # bytes after 'ident[pid]: ', where Postfix cuts a line
    LOG_JSON_TEXT_LIMIT = 1700      # the same for JSON: escaped, it may be twice as long, and fits LOG_PIPE_CHUNK
    LOG_PIPE_CHUNK = 4096           # PIPE_BUF: what a writable pipe or terminal accepts without blocking
    PRIORITY_INFO = 22              # mail.info
    PRIORITY_WARNING = 20           # mail.warning
    TURN_TRIES = 400                # to acquire the lock: 20 ms or a little more; its holder writes for microseconds
    TURN_PAUSE = 50_000             # ns between two attempts
    CUT_SECONDS = 3                 # a process that does not complete its cut line for this time is stopped or dead


# The state shared by the processes that write to one file. A full disk may cut a line short. Until its writer has
# written the rest, no other process writes, so that no line gets between the two parts.
cdef struct Turn:
    pthread_mutex_t mutex           # robust: it is released when its holder dies
    uint64_t cut_by                 # the writer whose line at the file's end is cut; 0: it ends with a newline
    uint64_t device, inode          # that file
    int64_t tried_at                # s, monotonic: when the writer last tried to complete it
    uint64_t writers                # numbers assigned so far


LOG_TURN_SIZE = sizeof(Turn)


@cython.final
cdef class LogTurn:
    """The lock for writing to the log, in memory that all processes share (see core.pyi)."""

    cdef object memory
    cdef Turn* turn

    def __cinit__(self, memory):
        cdef unsigned char[::1] view = memory
        cdef pthread_mutexattr_t attributes
        if view.shape[0] < <Py_ssize_t> sizeof(Turn):
            raise ValueError(f"{sizeof(Turn)} bytes are needed")
        self.memory = memory
        self.turn = <Turn*> &view[0]
        pthread_mutexattr_init(&attributes)
        pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED)
        pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST)
        failed = pthread_mutex_init(&self.turn.mutex, &attributes)
        pthread_mutexattr_destroy(&attributes)
        if failed:
            raise OSError(failed, os.strerror(failed))

    def hold(self):
        """Take the lock and keep it (tests)."""
        return pthread_mutex_trylock(&self.turn.mutex) == 0

    def release(self):
        """Release the lock (tests)."""
        pthread_mutex_unlock(&self.turn.mutex)


@cython.final
cdef class Log:
    """The log of one process: a file, a pipe or terminal, or syslog's socket (see core.pyi)."""

    cdef char* buffer
    cdef size_t length, capacity
    cdef size_t line            # where the current line begins
    cdef size_t text            # where its text begins, after 'ident[pid]: '
    cdef int fd
    cdef bint syslog, regular, rfc3339, json, as_dnsblog
    cdef long nanoseconds       # of the current line's time stamp
    cdef int priority
    cdef bytes ident, dnsblog, host, pid
    cdef int resolution         # decimals of 'after T'
    cdef int64_t stamp_second
    cdef char stamp[64]
    cdef size_t stamp_length
    cdef char zone[12]
    cdef bint stream            # a stream socket, like systemd's: never wait for its reader
    cdef LogTurn shared         # None: no other process writes to the file
    cdef uint64_t writer        # this process's number in it
    cdef bint contended         # the lock could not be acquired: its holder is stopped
    cdef uint64_t device, inode
    cdef size_t cut             # bytes of the first line in the buffer that are already in the file
    cdef int64_t cut_end        # the position in the file where they end
    cdef readonly int problem   # errno of the last write; 0: it succeeded, or the reader was not ready
    cdef int lost_to            # errno of the write before the first lost line
    cdef readonly bint disconnected
    cdef bint overflow          # a part of the current line did not fit
    cdef readonly uint64_t lost         # since this was last logged
    cdef readonly uint64_t lost_total
    cdef public object on_warning

    def __cinit__(self):
        self.fd = -1
        self.stamp_second = -1

    def __init__(self, str ident, *, bint rfc3339=False, bint json=False, int delay_resolution=2, str host, int pid):
        self.ident = ident.encode()
        self.dnsblog = (ident.rpartition("/")[0] + "/dnsblog" if "/" in ident else ident + "/dnsblog").encode()
        self.host = host.encode()
        self.pid = b"[%d]: " % pid
        self.rfc3339 = rfc3339 or json
        self.json = json
        self.resolution = delay_resolution

    def __dealloc__(self):
        free(self.buffer)

    def open(self, int fd, *, bint syslog=False, LogTurn turn=None):
        cdef file_status found
        self.flush()
        self.let_go()
        self.fd = fd
        self.syslog = syslog
        self.stamp_second = -1
        self.regular = self.stream = False
        if fstat(fd, &found) == 0:
            self.regular = S_ISREG(found.st_mode)
            self.stream = S_ISSOCK(found.st_mode)
            self.device, self.inode = found.st_dev, found.st_ino
        if turn is not self.shared:
            self.shared = turn
            self.writer = 0
        self.contended = False
        self.problem = 0
        self.disconnected = False

    def let_go(self):
        """Stop writing to the current log. The kept lines, including a line that was cut, are written to the next."""
        cdef Turn* turn
        if self.cut and self.regular:
            if self.shared is None:
                self.end_cut()
            elif self.take_turn():
                turn = self.shared.turn
                if turn.cut_by == self.writer and self.end_cut():
                    turn.cut_by = 0
                pthread_mutex_unlock(&turn.mutex)
        self.cut = 0
        self.fd = -1

    cdef bint end_cut(self) noexcept:
        """Remove the beginning of our cut line from the end of the file; if text follows it, end the line there."""
        cdef file_status found
        if fstat(self.fd, &found) == 0 and found.st_size == self.cut_end and self.cut_end >= <int64_t> self.cut:
            if ftruncate(self.fd, self.cut_end - <int64_t> self.cut) == 0:
                return True
        return write(self.fd, b"\n", 1) == 1

    @property
    def kept(self):
        """The number of bytes that could not be written yet."""
        return self.length

    def info(self, str text):
        self.message(PRIORITY_INFO, text)

    def warning(self, str text):
        self.message(PRIORITY_WARNING, text)

    cdef message(self, int priority, str text):
        cdef bytes data = text.encode("utf-8", "backslashreplace")
        self.begin(priority, False)
        if priority == PRIORITY_WARNING:
            self.put("warning: ")
        self.put_bytes(data, len(data))
        self.end()

    def lines(self):
        """Return the lines that are not written yet, and forget them (tests)."""
        cdef bytes data = self.buffer[:self.length] if self.length else b""
        self.length = 0
        return data

    # ---- one line

    cdef bint room(self, size_t size) noexcept:
        cdef char* buffer
        cdef size_t capacity
        if self.length + size <= self.capacity:
            return True
        if self.length + size > LOG_BUFFER_LIMIT:
            return False
        capacity = self.capacity * 2 if self.capacity else 65536
        while capacity < self.length + size:
            capacity *= 2
        buffer = <char*> realloc(self.buffer, capacity)
        if buffer == NULL:
            return False
        self.buffer = buffer
        self.capacity = capacity
        return True

    cdef void put_bytes(self, const char* text, size_t size) noexcept:
        if not self.overflow and self.room(size):
            memcpy(self.buffer + self.length, text, size)
            self.length += size
        else:
            self.overflow = True

    cdef void put(self, const char* text) noexcept:
        self.put_bytes(text, strlen(text))

    cdef void put_number(self, int64_t number) noexcept:
        cdef char text[24]
        self.put_bytes(text, number_text(number, text))

    cdef void put_address(self, const Address* address) noexcept:
        """[192.0.2.1]:51234"""
        cdef char text[64]
        cdef uint32_t length
        text[0] = c"["
        length = address_text(address, text + 1) + 1
        text[length] = c"]"
        text[length + 1] = c":"
        self.put_bytes(text, length + 2 + number_text(address.port, text + length + 2))

    cdef void put_delay(self, int64_t microseconds) noexcept:
        """Seconds with two significant digits, no trailing zeros (reference 6.1)."""
        cdef char text[32]
        cdef double seconds = microseconds / 1e6
        cdef int decimals = 0
        cdef int length
        if seconds < 10:
            decimals = 1
        if seconds < 1:
            decimals = 2
        if seconds < 0.1:
            decimals = 3
        if seconds < 0.01:
            decimals = 4
        decimals = min(decimals, self.resolution)
        length = snprintf(text, sizeof(text), "%.*f", decimals, seconds)
        if decimals:
            while text[length - 1] == c"0":
                length -= 1
            if text[length - 1] == c".":
                length -= 1
        self.put_bytes(text, length)

    cdef void put_printable(self, const char* text, size_t size) noexcept:
        """Add a peer's text up to a NUL (reference 5.2); characters that are not printable are replaced."""
        cdef size_t start = self.length
        self.put_bytes(text, size)
        make_printable(self.buffer + start, self.length - start)

    cdef void put_escaped(self, const char* text, size_t size, size_t limit) noexcept:
        """Add text with C escapes for all but printable ASCII (reference 3), at most `limit` characters."""
        cdef size_t at, length
        cdef uint8_t octet
        cdef char escaped[8]
        for at in range(size):
            octet = text[at]
            if 32 <= octet <= 126 and octet != c"\\":
                escaped[0] = octet
                length = 1
            else:
                escaped[0] = c"\\"
                length = 2
                if octet == 7:
                    escaped[1] = c"a"
                elif octet == 8:
                    escaped[1] = c"b"
                elif octet == 9:
                    escaped[1] = c"t"
                elif octet == 10:
                    escaped[1] = c"n"
                elif octet == 11:
                    escaped[1] = c"v"
                elif octet == 12:
                    escaped[1] = c"f"
                elif octet == 13:
                    escaped[1] = c"r"
                elif octet == c"\\":
                    escaped[1] = c"\\"
                else:
                    length = snprintf(escaped, sizeof(escaped), "\\%03o", <unsigned int> octet)
            if length > limit:
                length = limit
            self.put_bytes(escaped, length)
            limit -= length
            if limit == 0:
                return

    cdef void begin(self, int priority, bint as_dnsblog) noexcept:
        """Begin a line with its time stamp; DNSBL answers have a different ident (reference 4.3)."""
        cdef timespec moment
        cdef char text[16]
        clock_gettime(CLOCK_REALTIME, &moment)
        if moment.tv_sec != self.stamp_second:
            self.stamp_second = moment.tv_sec
            self.render_stamp()
        self.line = self.length
        self.overflow = False
        self.priority = priority
        self.as_dnsblog = as_dnsblog
        self.nanoseconds = moment.tv_nsec
        if self.json and not self.syslog:
            self.text = self.length
            return
        if self.syslog:
            self.put("<")
            self.put_number(priority)
            self.put(">")
        if self.json:
            self.put_traditional()
        else:
            self.put_bytes(self.stamp, self.stamp_length)
        if self.rfc3339 and not self.syslog:
            self.put_bytes(text, snprintf(text, sizeof(text), ".%06ld", moment.tv_nsec // 1000))
            self.put(self.zone)
        if not self.syslog:
            self.put(" ")
            self.put_bytes(self.host, len(self.host))
        self.put(" ")
        if as_dnsblog:
            self.put_bytes(self.dnsblog, len(self.dnsblog))
        else:
            self.put_bytes(self.ident, len(self.ident))
        self.put_bytes(self.pid, len(self.pid))
        self.text = self.length

    cdef void render_stamp(self) noexcept:
        cdef tm moment
        localtime_r(&self.stamp_second, &moment)
        if self.rfc3339 and (self.json or not self.syslog):
            self.stamp_length = strftime(self.stamp, sizeof(self.stamp), "%Y-%m-%dT%H:%M:%S", &moment)
            snprintf(self.zone, sizeof(self.zone), "%c%02d:%02d", c"-" if moment.tm_gmtoff < 0 else c"+",
                     <int> (abs(moment.tm_gmtoff) // 3600 % 24), <int> (abs(moment.tm_gmtoff) // 60 % 60))
        else:
            self.stamp_length = traditional(self.stamp, sizeof(self.stamp), &moment)

    cdef void put_traditional(self) noexcept:
        """Add the time stamp before JSON for syslog."""
        cdef tm moment
        cdef char text[64]
        localtime_r(&self.stamp_second, &moment)
        self.put_bytes(text, traditional(text, sizeof(text), &moment))

    cdef void end(self) noexcept:
        """End the line. A line that does not fit is dropped as a whole and counted."""
        if self.overflow or not self.room(1):
            self.lose()
            return
        if self.length > self.text + (LOG_JSON_TEXT_LIMIT if self.json else LOG_TEXT_LIMIT):
            self.length = self.text + (LOG_JSON_TEXT_LIMIT if self.json else LOG_TEXT_LIMIT)
        make_printable(self.buffer + self.text, self.length - self.text)
        if self.priority == PRIORITY_WARNING and self.on_warning is not None:
            self.tell_warning()
        if self.json:
            self.make_json()
            if self.overflow or not self.room(1):
                self.lose()
                return
        self.buffer[self.length] = c"\n"
        self.length += 1

    cdef void lose(self) noexcept:
        if self.lost == 0:
            self.lost_to = self.problem
        self.length = self.line
        self.lost += 1
        self.lost_total += 1

    cdef void make_json(self) noexcept:
        """Replace the line's text with a JSON object (docs/logs.md). The text is already printable."""
        cdef char text[LOG_JSON_TEXT_LIMIT]
        cdef char rest[16]
        cdef size_t size = self.length - self.text
        cdef size_t at
        memcpy(text, self.buffer + self.text, size)
        self.length = self.text
        self.put('{"time":"')
        self.put_bytes(self.stamp, self.stamp_length)
        self.put_bytes(rest, snprintf(rest, sizeof(rest), ".%06ld", self.nanoseconds // 1000))
        self.put(self.zone)
        self.put('","host":"')
        self.put_in_quotes(self.host, len(self.host))
        self.put('","program":"')
        if self.as_dnsblog:
            self.put_in_quotes(self.dnsblog, len(self.dnsblog))
        else:
            self.put_in_quotes(self.ident, len(self.ident))
        self.put('","pid":')
        self.put_bytes(<const char*> self.pid + 1, len(self.pid) - 4)       # of "[17]: "
        self.put(',"level":"warning"' if self.priority == PRIORITY_WARNING else ',"level":"info"')
        if self.priority != PRIORITY_WARNING:
            at = self.put_event(text, size)
            if at:
                self.put_client(text + at, size - at)
        self.put(',"message":"')
        self.put_in_quotes(text, size)
        self.put('"}')

    cdef size_t put_event(self, const char* text, size_t size) noexcept:
        """Add the line's event, from the capitals at its beginning: `PASS NEW` is "pass_new". Return where they end."""
        cdef char name[32]
        cdef size_t at = 0
        cdef size_t length = 0
        if size > 17 and memcmp(text, <const char*> "NOQUEUE: reject: ", 17) == 0:
            self.put(',"event":"reject"')
            return 17
        if size > 8 and memcmp(text, <const char*> "reject: ", 8) == 0:
            self.put(',"event":"reject"')
            return 8
        if self.as_dnsblog:
            self.put(',"event":"listed"')
            return 5 if size > 5 else 0             # after "addr "
        while at < size and at < sizeof(name) and (65 <= text[at] <= 90 or text[at] in (c" ", c"-")):
            if text[at] == c" ":
                length = at
            name[at] = text[at] + 32 if 65 <= text[at] <= 90 else c"_"
            at += 1
        if length < 2 or at == sizeof(name):        # not a whole word
            return 0
        self.put(',"event":"')
        self.put_bytes(name, length)
        self.put('"')
        return length

    cdef void put_client(self, const char* text, size_t size) noexcept:
        """The first [address]:port in the rest; for a list's answer, the address at its beginning."""
        cdef const char* first = text
        cdef const char* end
        cdef size_t length = 0
        cdef int port = 0
        if not self.as_dnsblog:
            first = <const char*> memchr(text, c"[", size)
            if first == NULL:
                return
            first += 1
        while first + length < text + size and length < 46 and (
                48 <= first[length] <= 57 or 97 <= first[length] <= 102 or first[length] in (c":", c".")):
            length += 1
        end = first + length
        if length == 0 or end >= text + size or end[0] != (c" " if self.as_dnsblog else c"]"):
            return
        self.put(',"client":"')
        self.put_bytes(first, length)
        self.put('"')
        if self.as_dnsblog or end + 2 >= text + size or end[1] != c":":
            return
        end += 2
        while end < text + size and 48 <= end[0] <= 57 and port < 65536:
            port = 10 * port + end[0] - 48
            end += 1
        self.put(',"port":')
        self.put_number(port)

    cdef void put_in_quotes(self, const char* text, size_t size) noexcept:
        """Add printable text as the inside of a JSON string (RFC 8259 7)."""
        cdef size_t at
        cdef size_t begun = 0
        for at in range(size):
            if text[at] in (c'"', c"\\"):
                self.put_bytes(text + begun, at - begun)
                self.put("\\")
                begun = at
        self.put_bytes(text + begun, size - begun)

    cdef void tell_warning(self) noexcept:
        try:
            self.on_warning(self.buffer[self.text:self.length])
        except Exception:
            self.on_warning = None      # on_warning failed: the warning is still in the log

    # ---- output

    cpdef flush(self):
        """Write all lines; keep what cannot be written now."""
        if self.length == 0 or self.fd < 0:
            return
        if self.syslog or self.shared is None:
            self.write_lines()
        elif self.take_turn():
            if self.nobody_is_cut():
                self.write_lines()
            pthread_mutex_unlock(&self.shared.turn.mutex)
        elif self.regular:
            self.write_lines()          # the holder of the lock is stopped; at worst, a cut line is not completed
        if self.length == 0 and self.lost:
            lost = self.lost
            self.lost = 0
            self.warning(f"{lost} log lines were lost: {os.strerror(self.lost_to) if self.lost_to else 'too slow'}")

    cdef bint take_turn(self) noexcept:
        """Acquire the lock. False: another process has held it for too long."""
        cdef int answer = EBUSY
        cdef timespec pause
        cdef int _
        pause.tv_sec, pause.tv_nsec = 0, TURN_PAUSE
        for _ in range(1 if self.contended else TURN_TRIES):
            answer = pthread_mutex_trylock(&self.shared.turn.mutex)
            if answer != EBUSY:
                break
            nanosleep(&pause, NULL)
        if answer == EOWNERDEAD:
            answer = pthread_mutex_consistent(&self.shared.turn.mutex)
        self.contended = answer != 0
        return not self.contended

    cdef bint nobody_is_cut(self) noexcept:
        """Whether the file ends with a complete line, or with the beginning of this process's line."""
        cdef Turn* turn = self.shared.turn
        cdef timespec now
        if turn.cut_by == 0 and self.cut == 0:
            return True
        if self.writer and turn.cut_by == self.writer:
            return True
        clock_gettime(CLOCK_MONOTONIC, &now)
        if turn.cut_by and turn.device == self.device and turn.inode == self.inode:
            # The disk is full: another line would not fit either. The writer tries again every second.
            if 0 <= now.tv_sec - turn.tried_at < CUT_SECONDS or write(self.fd, b"\n", 1) != 1:
                return False
            turn.cut_by = 0
        elif turn.cut_by and self.cut and write(self.fd, b"\n", 1) != 1:   # the entry is about another file
            return False
        self.cut = 0                    # another process has ended our line: write it again in full
        return True

    cdef void write_lines(self) noexcept:
        """Write as much as possible; lines that are complete in the file are no longer kept."""
        cdef size_t written = self.cut
        cdef size_t whole = 0
        cdef Py_ssize_t got
        cdef const char* newline
        cdef timespec now
        while written < self.length:
            got = self.write_some(self.buffer + written, self.length - written)
            if got <= 0:
                break
            written += got
        if written:
            newline = <const char*> memrchr(self.buffer, c"\n", written)
            if newline != NULL:
                whole = newline + 1 - self.buffer
            self.length -= whole
            memmove(self.buffer, self.buffer + whole, self.length)
        if self.regular and written > whole and written > self.cut:
            self.cut_end = lseek(self.fd, 0, SEEK_CUR)
        self.cut = written - whole
        if self.shared is None or self.syslog:
            return
        if self.cut:
            if self.writer == 0:
                self.shared.turn.writers += 1
                self.writer = self.shared.turn.writers
            clock_gettime(CLOCK_MONOTONIC, &now)
            self.shared.turn.cut_by, self.shared.turn.tried_at = self.writer, now.tv_sec
            self.shared.turn.device, self.shared.turn.inode = self.device, self.inode
        elif self.writer and self.shared.turn.cut_by == self.writer:
            self.shared.turn.cut_by = 0

    cdef Py_ssize_t write_some(self, const char* data, size_t size) noexcept:
        """Write a part, to syslog exactly one line. 0 or less: it cannot be written now."""
        cdef pollfd ready
        cdef Py_ssize_t got
        cdef const char* newline
        if self.syslog:
            newline = <const char*> memchr(data, c"\n", size)
            got = send(self.fd, data, newline - data, MSG_DONTWAIT | MSG_NOSIGNAL)
            if got >= 0:
                got += 1
        elif self.regular:
            got = write(self.fd, data, size)
        else:
            ready.fd = self.fd
            ready.events = POLLOUT
            if poll(&ready, 1, 0) != 1:
                self.problem = 0
                return 0
            if size > LOG_PIPE_CHUNK:               # complete lines: other workers write to the same pipe
                newline = <const char*> memrchr(data, c"\n", LOG_PIPE_CHUNK)
                size = newline + 1 - data if newline != NULL else LOG_PIPE_CHUNK
            if self.stream:
                got = send(self.fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL)
            else:
                got = write(self.fd, data, size)
        if got >= 0:
            self.problem = 0
        elif errno == EAGAIN:
            self.problem = 0
        else:
            self.problem = errno
            self.disconnected = self.syslog and errno in (ECONNREFUSED, ENOTCONN, ECONNRESET)
        return got


cdef int traditional(char* text, size_t size, const tm* moment) noexcept nogil:
    """Write a time stamp in syslog's format, independently of the locale (RFC 3164 4.1.2); return its length."""
    return snprintf(text, size, "%.3s %2d %02d:%02d:%02d", MONTHS + 3 * moment.tm_mon,
                    moment.tm_mday, moment.tm_hour, moment.tm_min, moment.tm_sec)


cdef uint32_t number_text(int64_t number, char* text) noexcept nogil:
    """Write a number in decimal, NUL-terminated, into 24 bytes; return its length."""
    cdef uint64_t rest = -<uint64_t> number if number < 0 else number
    cdef uint64_t scale = rest
    cdef uint32_t length = 2 if number < 0 else 1
    cdef uint32_t at
    text[0] = c"-"
    while scale >= 10:
        scale //= 10
        length += 1
    at = length
    text[length] = 0
    while True:
        at -= 1
        text[at] = <char> (48 + rest % 10)
        rest //= 10
        if rest == 0:
            return length


cdef inline bint eight_printable(const char* text) noexcept nogil:
    """True if each of eight bytes is between 32 and 126. All bytes of the word are tested at once."""
    cdef uint64_t word
    cdef uint64_t ones = 0x0101010101010101
    memcpy(&word, text, 8)
    # Highest bits: of the byte itself; of the byte plus 1 if it is 127; of the byte minus 32 if it is less than 32.
    return (word | (word + ones) | (word - 32 * ones)) & (128 * ones) == 0


cdef void make_printable(char* text, size_t size) noexcept nogil:
    """Replace what is not printable by '?'. UTF-8 stays, except for the C1 controls, which some terminals interpret."""
    cdef size_t at = 0
    cdef uint32_t length
    cdef uint8_t octet
    while at < size:
        if at + 8 <= size and eight_printable(text + at):
            at += 8
            continue
        octet = text[at]
        if 32 <= octet <= 126:
            at += 1
            continue
        length = 2 if 0xC2 <= octet <= 0xDF else 3 if 0xE0 <= octet <= 0xEF else 4 if 0xF0 <= octet <= 0xF4 else 0
        if length and at + length <= size and utf8_valid(text + at, length) and not (
                octet == 0xC2 and <uint8_t> text[at + 1] < 0xA0):
            at += length
        else:
            text[at] = c"?"
            at += 1
