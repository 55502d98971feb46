/* The least that an MTA behind a relay can be: reads the PROXY header, version 2, greets the client, takes messages and
 * throws them away.
 *
 * mta PORT: serves 127.0.0.1 until SIGTERM, then prints what it had as JSON. "bad" are connections that did not begin
 * with a header that names a client of 127/8, or with HAProxy's LOCAL.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

static const char signature[] = "\r\n\r\n\0\r\nQUIT\n";
static const char greeting[] = "220 mta.example.test ESMTP\r\n";
static const char offers[] = "250-mta.example.test\r\n250-PIPELINING\r\n250-SIZE\r\n250-ENHANCEDSTATUSCODES\r\n"
                             "250-8BITMIME\r\n250-DSN\r\n250-SMTPUTF8\r\n250 CHUNKING\r\n";
static const char message_end[] = "\r\n.\r\n";

#define TAIL 5 /* octets of message_end */

struct session {
    int fd;
    enum { HEADER, COMMANDS, MESSAGE } stage;
    size_t length;
    char text[1024], tail[TAIL];
};

static volatile sig_atomic_t stop;
static long taken, bad, messages;
static char feed[262144];

static void on_signal(int number)
{
    (void) number;
    stop = 1;
}

/* Replies fit into an empty socket buffer. */
static int say(struct session *session, const char *text)
{
    return send(session->fd, text, strlen(text), MSG_NOSIGNAL | MSG_DONTWAIT) >= 0;
}

/* The header's size; 0: more of it is to come; -1: it is none. */
static int header(const struct session *session)
{
    const unsigned char *text = (const unsigned char *) session->text;
    size_t size;

    if (session->length < 16)
        return 0;
    size = 16 + (size_t) (text[14] << 8 | text[15]);
    if (memcmp(text, signature, 12) != 0 || size > sizeof session->text)
        return -1;
    if (text[12] == 0x21 && (text[13] != 0x11 || size < 28 || (session->length >= 28 && text[16] != 127)))
        return -1;
    return session->length < size ? 0 : (int) size;
}

static int command(struct session *session, const char *line)
{
    if (strncmp(line, "EHLO", 4) == 0)
        return say(session, offers);
    if (strncmp(line, "DATA", 4) == 0) {
        session->stage = MESSAGE;
        memset(session->tail, 0, TAIL);
        return say(session, "354 End data with <CR><LF>.<CR><LF>\r\n");
    }
    if (strncmp(line, "QUIT", 4) == 0) {
        say(session, "221 2.0.0 Bye\r\n");
        return 0;
    }
    return say(session, "250 2.1.0 Ok\r\n");
}

/* 0: it is over. Nobody sends behind a message before it is answered. */
static int take_message(struct session *session)
{
    ssize_t got = recv(session->fd, feed, sizeof feed, MSG_DONTWAIT);

    if (got <= 0)
        return got < 0 && errno == EAGAIN;
    if (got >= TAIL)
        memcpy(session->tail, feed + got - TAIL, TAIL);
    else {
        memmove(session->tail, session->tail + got, (size_t) (TAIL - got));
        memcpy(session->tail + TAIL - got, feed, (size_t) got);
    }
    if (memcmp(session->tail, message_end, TAIL) != 0)
        return 1;
    messages++;
    session->stage = COMMANDS;
    return say(session, "250 2.0.0 Ok: thrown away\r\n");
}

/* 0: it is over. */
static int serve(struct session *session)
{
    char *text = session->text, *end, *newline;
    ssize_t got;
    int size;

    if (session->stage == MESSAGE)
        return take_message(session);
    got = recv(session->fd, text + session->length, sizeof session->text - session->length, MSG_DONTWAIT);
    if (got <= 0)
        return got < 0 && errno == EAGAIN;
    session->length += (size_t) got;
    if (session->stage == HEADER) {
        size = header(session);
        if (size < 0)
            bad++;
        if (size <= 0)
            return size == 0;
        taken++;
        session->stage = COMMANDS;
        session->length -= (size_t) size;
        memmove(text, text + size, session->length);
        if (!say(session, greeting))
            return 0;
    }
    end = session->text + session->length;
    while ((newline = memchr(text, '\n', (size_t) (end - text))) != NULL) {
        if (!command(session, text))
            return 0;
        text = newline + 1;
    }
    session->length = (size_t) (end - text);
    memmove(session->text, text, session->length);
    return session->length < sizeof session->text;
}

static void take(int epoll, int listener)
{
    struct epoll_event wanted = {.events = EPOLLIN};
    struct session *session;
    int fd, on = 1;

    while ((fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)) >= 0) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        session = calloc(1, sizeof *session);
        wanted.data.ptr = session;
        if (session == NULL || epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &wanted) < 0) {
            free(session);
            close(fd);
            return;
        }
        session->fd = fd;
    }
}

int main(int argc, char **argv)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    struct sigaction action = {.sa_handler = on_signal};
    struct epoll_event events[64], wanted = {.events = EPOLLIN};
    struct rlimit descriptors;
    int listener, epoll, ready, on = 1;

    if (argc != 2) {
        fprintf(stderr, "usage: mta PORT\n");
        return 2;
    }
    sigaction(SIGTERM, &action, NULL);
    if (getrlimit(RLIMIT_NOFILE, &descriptors) == 0) {
        descriptors.rlim_cur = descriptors.rlim_max;
        setrlimit(RLIMIT_NOFILE, &descriptors);
    }
    address.sin_port = htons((uint16_t) atoi(argv[1]));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    if (listener < 0 || epoll < 0 || setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0
        || bind(listener, (struct sockaddr *) &address, sizeof address) < 0 || listen(listener, 4096) < 0
        || epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &wanted) < 0) {
        perror("mta");
        return 1;
    }
    while (!stop) {
        ready = epoll_wait(epoll, events, 64, -1);
        for (int at = 0; at < ready; at++) {
            struct session *session = events[at].data.ptr;
            if (session == NULL)
                take(epoll, listener);
            else if (!serve(session)) {
                close(session->fd);
                free(session);
            }
        }
    }
    printf("{\"taken\": %ld, \"bad\": %ld, \"messages\": %ld}\n", taken, bad, messages);
    return 0;
}
