/* The load: SMTP clients of one kind, from many loopback addresses, bounded in number, concurrency and time.
 *
 * load PORT KIND COUNT CONCURRENCY SOURCES SECONDS
 *   known      connects and waits for the server's end of file: a client that is handed on, or sent away
 *   pregreet   sends "EHLO" at once, then the same
 * Sources are 127.1.0.1, 127.1.0.2, ... Prints one JSON object; times are microseconds from connect().
 * "banner" counts clients that saw a first byte, "busy" those that were told 421, "refused521" those told 521.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#ifndef IP_BIND_ADDRESS_NO_PORT
#define IP_BIND_ADDRESS_NO_PORT 24
#endif

static const char greeting[] = "EHLO bench.example.test\r\n";

struct client {
    int fd;
    int sent, seen_byte;
    int64_t began;
    size_t length;
    char text[256];
};

static int64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t) time.tv_sec * 1000000 + time.tv_nsec / 1000;
}

static int by_size(const void *one, const void *other)
{
    int32_t a = *(const int32_t *) one, b = *(const int32_t *) other;
    return (a > b) - (a < b);
}

static long count, sources;
static int epoll, pregreet, port;
static long started, finished, banner, busy, refused521, reset, failed;
static int32_t *first_byte, *ended;
static long first_bytes;

static int begin(struct client *client)
{
    struct sockaddr_in from = {.sin_family = AF_INET}, to = {.sin_family = AF_INET, .sin_port = htons((uint16_t) port)};
    struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP | (pregreet ? EPOLLOUT : 0), .data.ptr = client};
    long source = started % sources;
    int on = 1;

    memset(client, 0, sizeof *client);
    client->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (client->fd < 0)
        return -1;
    from.sin_addr.s_addr = htonl((uint32_t) (0x7F010001 + source));
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(client->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    setsockopt(client->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    client->began = now();
    started++;
    if (bind(client->fd, (struct sockaddr *) &from, sizeof from) < 0
        || (connect(client->fd, (struct sockaddr *) &to, sizeof to) < 0 && errno != EINPROGRESS)
        || epoll_ctl(epoll, EPOLL_CTL_ADD, client->fd, &event) < 0) {
        close(client->fd);
        failed++;
        finished++;
        return 0;
    }
    return 1;
}

static void end(struct client *client, int error)
{
    char *line = client->text, *next;

    client->text[client->length] = 0;
    for (; line != NULL && *line; line = next) {
        next = strstr(line, "\r\n");
        if (next != NULL)
            next += 2;
        if (strncmp(line, "421", 3) == 0)
            busy++;
        else if (strncmp(line, "521", 3) == 0)
            refused521++;
    }
    if (error == ECONNRESET || error == EPIPE)
        reset++;
    else if (error)
        failed++;
    ended[finished++] = (int32_t) (now() - client->began);
    close(client->fd);
    client->fd = -1;
}

static void serve(struct client *client, uint32_t events)
{
    if (pregreet && !client->sent && events & EPOLLOUT) {
        struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP, .data.ptr = client};
        client->sent = 1;
        if (send(client->fd, greeting, sizeof greeting - 1, MSG_NOSIGNAL) < 0) {
            end(client, errno);
            return;
        }
        epoll_ctl(epoll, EPOLL_CTL_MOD, client->fd, &event);
    }
    while (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) {
        char more[4096];
        ssize_t got = recv(client->fd, more, sizeof more, 0);
        if (got < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (got <= 0) {
            end(client, got < 0 ? errno : 0);
            return;
        }
        if (!client->seen_byte) {
            client->seen_byte = 1;
            banner++;
            first_byte[first_bytes++] = (int32_t) (now() - client->began);
        }
        if ((size_t) got > sizeof client->text - 1 - client->length)
            got = (ssize_t) (sizeof client->text - 1 - client->length);
        memcpy(client->text + client->length, more, (size_t) got);
        client->length += (size_t) got;
    }
}

static void times(const char *name, int32_t *values, long number)
{
    qsort(values, (size_t) number, sizeof *values, by_size);
    printf(", \"%s_p50\": %d, \"%s_p99\": %d", name, number ? values[number / 2] : -1, name,
           number ? values[number * 99 / 100] : -1);
}

int main(int argc, char **argv)
{
    struct epoll_event events[64];
    struct client *clients;
    int64_t began, limit;
    long concurrency, at;
    int ready;

    if (argc != 7) {
        fprintf(stderr, "usage: load PORT known|pregreet COUNT CONCURRENCY SOURCES SECONDS\n");
        return 2;
    }
    port = atoi(argv[1]);
    pregreet = strcmp(argv[2], "pregreet") == 0;
    count = atol(argv[3]);
    concurrency = atol(argv[4]);
    sources = atol(argv[5]);
    if (count < 1 || count > 10000000 || concurrency < 1 || concurrency > 50000 || sources < 1 || sources > 60000) {
        fprintf(stderr, "load: out of bounds\n");
        return 2;
    }
    if (concurrency > count)
        concurrency = count;
    clients = calloc((size_t) concurrency, sizeof *clients);
    first_byte = malloc((size_t) count * sizeof *first_byte);
    ended = malloc((size_t) count * sizeof *ended);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    if (clients == NULL || first_byte == NULL || ended == NULL || epoll < 0) {
        perror("load");
        return 1;
    }
    began = now();
    limit = began + (int64_t) atol(argv[6]) * 1000000;
    for (at = 0; at < concurrency; at++)
        clients[at].fd = -1;
    for (at = 0; at < concurrency && started < count; at++)
        while (started < count && begin(&clients[at]) == 0)
            ;
    while (finished < count && now() < limit) {
        ready = epoll_wait(epoll, events, 64, 100);
        for (at = 0; at < ready; at++) {
            struct client *client = events[at].data.ptr;
            if (client->fd < 0)
                continue;
            serve(client, events[at].events);
            if (client->fd < 0)
                while (started < count && begin(client) == 0)
                    ;
        }
    }
    printf("{\"count\": %ld, \"finished\": %ld, \"banner\": %ld, \"busy\": %ld, \"refused521\": %ld, \"reset\": %ld, "
           "\"failed\": %ld, \"seconds\": %.6f",
           count, finished, banner, busy, refused521, reset, failed, (double) (now() - began) / 1e6);
    times("first_byte", first_byte, first_bytes);
    times("end", ended, finished);
    printf("}\n");
    return 0;
}
