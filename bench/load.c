/* The load: SMTP clients of one kind, from many loopback addresses, bounded in number, concurrency, rate and time.
 *
 * load port=P kind=K count=N concurrent=N first=ADDRESS sources=N rate=N seconds=N hold=N [size=N messages=N]
 *
 * `count` clients connect to 127.0.0.1 port P; at most `concurrent` are on their way at a time, at most `rate` begin a
 * second (0: as fast as there is room). They come from `sources` addresses in turn, from `first` on. The kinds are in
 * kinds.h. One that sends messages sends `messages` of `size` octets each.
 *
 * After `seconds`, or when all are done, prints one JSON object; times are microseconds from connect(). Then those that
 * stay do so until the end of standard input, at most `hold` seconds, and {"left": N} says how many were closed.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "kinds.h"

#ifndef IP_BIND_ADDRESS_NO_PORT
#define IP_BIND_ADDRESS_NO_PORT 24
#endif

#define SECOND 1000000

struct client {
    int fd, step;
    unsigned char spoke, heard, complete;
    uint16_t length;
    int64_t began;
    long unsent, messages; /* octets of this message; messages sent */
    char text[256]; /* of a line that is not complete */
};

static const struct kind *kind;
static long port, count, concurrent, sources, rate, seconds, hold, size, messages;
static uint32_t first;

static int epoll;
static struct client **spare;
static long spares, under_way, started, finished, complete, busy, refused, reset, failed, left, first_bytes, ends;
static int32_t *first_byte, *end_time;

static char body[262144]; /* lines of 64 octets */
static const char body_end[] = "\r\n.\r\n";
#define BODY_END ((long) sizeof body_end - 1)

static int64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t) time.tv_sec * SECOND + time.tv_nsec / 1000;
}

/* The client is where it wants to be, or it is gone. */
static void done(struct client *client)
{
    end_time[ends++] = (int32_t) (now() - client->began);
    finished++;
    under_way--;
}

static void gone(struct client *client, int error)
{
    if (error == ECONNRESET || error == EPIPE)
        reset++;
    else if (error)
        failed++;
    if (kind->stays && client->complete)
        left++;
    else
        done(client);
    close(client->fd);
    client->fd = -1;
    spare[spares++] = client;
}

static void begin(void)
{
    struct sockaddr_in from = {.sin_family = AF_INET}, to = {.sin_family = AF_INET, .sin_port = htons((uint16_t) port)};
    struct client *client = spare[--spares];
    struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP, .data.ptr = client};
    int on = 1;

    memset(client, 0, offsetof(struct client, text));
    from.sin_addr.s_addr = htonl(first + (uint32_t) (started % sources));
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    started++;
    under_way++;
    client->began = now();
    client->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (kind->at_once != NULL)
        event.events |= EPOLLOUT;
    if (client->fd < 0 || setsockopt(client->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on) < 0
        || setsockopt(client->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) < 0
        || bind(client->fd, (struct sockaddr *) &from, sizeof from) < 0
        || (connect(client->fd, (struct sockaddr *) &to, sizeof to) < 0 && errno != EINPROGRESS)
        || epoll_ctl(epoll, EPOLL_CTL_ADD, client->fd, &event) < 0) {
        if (failed == 0)
            perror("load: a client cannot begin");
        gone(client, EIO);
    }
}

static int say(struct client *client, const char *text)
{
    return send(client->fd, text, strlen(text), MSG_NOSIGNAL) < 0 ? errno : 0;
}

static int watch(struct client *client, uint32_t events)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP | events, .data.ptr = client};
    return epoll_ctl(epoll, EPOLL_CTL_MOD, client->fd, &event) < 0 ? errno : 0;
}

/* Send of the message what there is room for; returns an error number, or 0. */
static int send_message(struct client *client)
{
    while (client->unsent > 0) {
        long left = client->unsent - BODY_END, at = left > 0 ? (size - client->unsent) % (long) sizeof body : 0;
        long part = left > (long) sizeof body - at ? (long) sizeof body - at : left > 0 ? left : 0;
        long ended = left < 0 ? -left : 0;
        struct iovec parts[2] = {{body + at, (size_t) part}, {(char *) body_end + ended, (size_t) (BODY_END - ended)}};
        struct msghdr message = {.msg_iov = parts, .msg_iovlen = part >= left ? 2 : 1};
        ssize_t sent = sendmsg(client->fd, &message, MSG_NOSIGNAL);
        if (sent < 0)
            return errno == EAGAIN ? watch(client, EPOLLOUT) : errno;
        client->unsent -= sent;
    }
    return 0;
}

/* Takes one line; returns an error number, or 0. */
static int line(struct client *client, const char *text)
{
    const struct step *step = &kind->steps[client->step];
    int error = 0;

    if (strncmp(text, "421", 3) == 0)
        busy++;
    else if (text[0] == '5')
        refused++;
    if (step->line == NULL || strncmp(text, step->line, 4) != 0)
        return 0;
    if (client->step > 0 && step[-1].say == MESSAGE && ++client->messages < messages) {
        client->step -= 3; /* the next message begins with MAIL */
        return say(client, MAIL);
    }
    client->step++;
    if (step->say == MESSAGE) {
        client->unsent = size;
        error = send_message(client);
    } else if (step->say != NULL)
        error = say(client, step->say);
    if (!error && step[1].line == NULL) {
        client->complete = 1;
        complete++;
        if (kind->stays)
            done(client);
    }
    return error;
}

static int lines(struct client *client, ssize_t got)
{
    char *text = client->text, *end = text + client->length + got, *newline;
    int error = 0;

    while (!error && (newline = memchr(text, '\n', (size_t) (end - text))) != NULL) {
        error = line(client, text);
        text = newline + 1;
    }
    client->length = (uint16_t) (end - text);
    if (client->length == sizeof client->text) /* no line of interest is that long */
        client->length = 0;
    memmove(client->text, text, client->length);
    return error;
}

static void serve(struct client *client, uint32_t events)
{
    if (events & EPOLLOUT) {
        int error = watch(client, 0);
        if (!error)
            error = client->unsent > 0 ? send_message(client) : client->spoke ? 0 : say(client, kind->at_once);
        client->spoke = 1;
        if (error) {
            gone(client, error);
            return;
        }
    }
    while (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) {
        size_t room = sizeof client->text - client->length;
        ssize_t got = recv(client->fd, client->text + client->length, room, 0);
        int error;
        if (got < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (got <= 0) {
            gone(client, got < 0 ? errno : 0);
            return;
        }
        if (!client->heard) {
            client->heard = 1;
            first_byte[first_bytes++] = (int32_t) (now() - client->began);
        }
        error = lines(client, got);
        if (error) {
            gone(client, error);
            return;
        }
        if ((size_t) got < room && !(events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)))
            return;
    }
}

static void serve_ready(int timeout)
{
    struct epoll_event events[64];
    int ready = epoll_wait(epoll, events, 64, timeout);

    for (int at = 0; at < ready; at++) {
        struct client *client = events[at].data.ptr;
        if (client != NULL && client->fd >= 0)
            serve(client, events[at].events);
    }
}

/* Begin what is due; return how long to wait for the next, in ms. */
static int begin_due(int64_t since)
{
    int batch = 32; /* then those that have begun are looked after */

    while (started < count && under_way < concurrent) {
        int64_t due = rate > 0 ? since + started * SECOND / rate - now() : 0;
        if (due > 0)
            return (int) (due / 1000);
        if (batch-- == 0)
            return 0;
        begin();
    }
    return 100;
}

/* Keep those that stay until standard input ends. */
static void keep(void)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP};
    int64_t until = now() + hold * SECOND;
    char ignored[64];

    if (epoll_ctl(epoll, EPOLL_CTL_ADD, STDIN_FILENO, &event) < 0)
        return; /* a file or /dev/null: it has ended */
    while (now() < until) {
        struct epoll_event one;
        if (epoll_wait(epoll, &one, 1, 1000) < 1)
            continue;
        if (one.data.ptr != NULL)
            serve(one.data.ptr, one.events);
        else if (read(STDIN_FILENO, ignored, sizeof ignored) <= 0)
            break;
    }
    printf("{\"left\": %ld}\n", left);
}

static int by_size(const void *one, const void *other)
{
    int32_t a = *(const int32_t *) one, b = *(const int32_t *) other;
    return (a > b) - (a < b);
}

static void times(const char *name, int32_t *values, long number)
{
    long within = 0;

    qsort(values, (size_t) number, sizeof *values, by_size);
    while (within < number && values[within] <= SECOND)
        within++;
    printf(", \"%s\": {\"number\": %ld, \"within_second\": %ld", name, number, within);
    if (number > 0)
        printf(", \"p50\": %d, \"p99\": %d, \"max\": %d", values[number / 2], values[number * 99 / 100],
               values[number - 1]);
    printf("}");
}

static int number(const char *argument, const char *name, long most, long *value)
{
    size_t length = strlen(name);
    char *rest;

    if (strncmp(argument, name, length) != 0 || argument[length] != '=')
        return 0;
    *value = strtol(argument + length + 1, &rest, 10);
    return *rest == 0 && *value >= 0 && *value <= most;
}

static int understand(int argc, char **argv)
{
    for (int at = 1; at < argc; at++) {
        struct in_addr address;
        if (strncmp(argv[at], "kind=", 5) == 0) {
            for (size_t each = 0; each < sizeof kinds / sizeof *kinds; each++)
                if (strcmp(argv[at] + 5, kinds[each].name) == 0)
                    kind = &kinds[each];
        } else if (strncmp(argv[at], "first=", 6) == 0 && inet_pton(AF_INET, argv[at] + 6, &address) == 1)
            first = ntohl(address.s_addr);
        else if (!number(argv[at], "port", 65535, &port) && !number(argv[at], "count", 1000000, &count)
                 && !number(argv[at], "concurrent", 50000, &concurrent) && !number(argv[at], "rate", 100000, &rate)
                 && !number(argv[at], "sources", 1000000, &sources) && !number(argv[at], "seconds", 600, &seconds)
                 && !number(argv[at], "hold", 1800, &hold) && !number(argv[at], "size", 100000000, &size)
                 && !number(argv[at], "messages", 10000, &messages))
            return 0;
    }
    return kind != NULL && port > 0 && count > 0 && concurrent > 0 && sources > 0 && seconds > 0 && (size == 0 || size >= BODY_END)
           && first >> 24 == 127
           && (first + (uint32_t) sources) >> 24 == 127;
}

int main(int argc, char **argv)
{
    struct rlimit descriptors;
    struct client *clients;
    int64_t began, until;
    long places;

    if (!understand(argc, argv)) {
        fprintf(stderr, "load: arguments missing, unknown or out of bounds; the head of load.c says what they are\n");
        return 2;
    }
    if (getrlimit(RLIMIT_NOFILE, &descriptors) == 0) {
        descriptors.rlim_cur = descriptors.rlim_max;
        setrlimit(RLIMIT_NOFILE, &descriptors);
    }
    for (size_t at = 0; at < sizeof body; at++)
        body[at] = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcd\r\n"[at % 64];
    if (concurrent > count)
        concurrent = count;
    places = kind->stays ? count : concurrent;
    clients = calloc((size_t) places, sizeof *clients);
    spare = calloc((size_t) places, sizeof(struct client *));
    first_byte = malloc((size_t) count * sizeof *first_byte);
    end_time = malloc((size_t) count * sizeof *end_time);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    if (clients == NULL || spare == NULL || first_byte == NULL || end_time == NULL || epoll < 0) {
        perror("load");
        return 1;
    }
    while (spares < places) {
        clients[spares].fd = -1;
        spare[spares] = &clients[spares];
        spares++;
    }
    began = now();
    until = began + seconds * SECOND;
    int64_t all_begun = 0;
    while (finished < count && now() < until) {
        int timeout = begin_due(began);
        if (started == count && all_begun == 0)
            all_begun = now();
        serve_ready(timeout);
    }
    printf("{\"count\": %ld, \"finished\": %ld, \"complete\": %ld, \"busy\": %ld, \"refused\": %ld, \"reset\": %ld, "
           "\"failed\": %ld, \"seconds\": %.6f, \"begun_in\": %.6f",
           count, finished, complete, busy, refused, reset, failed, (double) (now() - began) / SECOND,
           all_begun ? (double) (all_begun - began) / SECOND : -1.0);
    times("first_byte", first_byte, first_bytes);
    times("end", end_time, ends);
    printf("}\n");
    fflush(stdout);
    if (kind->stays && hold > 0)
        keep();
    return 0;
}
