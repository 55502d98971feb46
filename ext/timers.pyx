# Timers: one FIFO for each kind and duration. Arming, canceling and the next deadline cost the same for one client and
# for 15,000. There are as many queues as durations in use, which is a handful.


@cython.final
cdef class Timers:
    cdef TimerQueue* queues

    def __dealloc__(self):
        cdef TimerQueue* queue
        while self.queues != NULL:
            queue = self.queues
            self.queues = queue.next
            free(queue)

    cdef TimerQueue* queue(self, TimerKind kind, int64_t duration) noexcept:
        """The FIFO of this kind and duration (µs), created if necessary. NULL: out of memory."""
        cdef TimerQueue* queue = self.queues
        while queue != NULL:
            if queue.duration == duration and queue.kind == kind:
                return queue
            queue = queue.next
        queue = self.unused()
        if queue == NULL:
            queue = <TimerQueue*> calloc(1, sizeof(TimerQueue))
            if queue == NULL:
                return NULL
            queue.next = self.queues
            self.queues = queue
        queue.kind = kind
        queue.duration = duration
        return queue

    cdef TimerQueue* unused(self) noexcept:
        """An empty queue with a configurable duration, if a few reloads have left many such queues.

        Never one of a fixed duration: its user may be using the queue, which is empty at the moment.
        """
        cdef TimerQueue* queue = self.queues
        cdef TimerQueue* empty = NULL
        cdef int count = 0
        while queue != NULL:
            count += 1
            if queue.head == NULL and queue.kind in (
                    TIMER_GREET, TIMER_COMMAND, TIMER_QUERY, TIMER_PROXY, TIMER_RELAY, TIMER_RELAY_TOTAL,
                    TIMER_CONTINUE, TIMER_SLOW):
                empty = queue
            queue = queue.next
        return empty if count >= 32 else NULL

    cdef bint arm(self, Timer* timer, TimerKind kind, int64_t duration, int64_t now) noexcept:
        """Start or restart a timer. False: out of memory, and the timer is not armed."""
        cdef TimerQueue* queue = self.queue(kind, duration)
        self.cancel(timer)
        if queue == NULL:
            return False
        timer.deadline = now + duration
        timer.queue = queue
        timer.next = NULL
        timer.prev = queue.tail
        if queue.tail != NULL:
            queue.tail.next = timer
        else:
            queue.head = timer
        queue.tail = timer
        return True

    cdef void cancel(self, Timer* timer) noexcept:
        cdef TimerQueue* queue = timer.queue
        if queue == NULL:
            return
        if timer.prev != NULL:
            timer.prev.next = timer.next
        else:
            queue.head = timer.next
        if timer.next != NULL:
            timer.next.prev = timer.prev
        else:
            queue.tail = timer.prev
        timer.queue = NULL

    cdef Timer* expired(self, int64_t now, TimerKind* kind) noexcept:
        """Remove and return a timer that is due, the earliest first. NULL: no timer is due."""
        cdef TimerQueue* queue = self.queues
        cdef Timer* first = NULL
        while queue != NULL:
            if queue.head != NULL and queue.head.deadline <= now:
                if first == NULL or queue.head.deadline < first.deadline:
                    first = queue.head
            queue = queue.next
        if first != NULL:
            kind[0] = first.queue.kind
            self.cancel(first)
        return first

    cdef int64_t next_deadline(self) noexcept:
        """When the next timer is due (µs), or -1."""
        cdef TimerQueue* queue = self.queues
        cdef int64_t earliest = -1
        while queue != NULL:
            if queue.head != NULL and (earliest < 0 or queue.head.deadline < earliest):
                earliest = queue.head.deadline
            queue = queue.next
        return earliest
