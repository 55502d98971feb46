/* The least that can stand behind a hand-off: takes each client's descriptor as smtpd does, reads the attributes, greets
 * the client, closes.
 *
 * receiver SOCKET: serves until SIGTERM, then prints how many clients it took.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static const char banner[] = "220 mta.example.test ESMTP\r\n";
static volatile sig_atomic_t stop;
static long gone; /* before they could be greeted */

static void on_signal(int number)
{
    (void) number;
    stop = 1;
}

static int wait_for(int fd)
{
    struct pollfd wanted = {.fd = fd, .events = POLLIN};
    return poll(&wanted, 1, 1000) == 1;
}

static int receive(int channel)
{
    char byte, list[1024];
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int))];
    } control;
    struct iovec data = {&byte, 1};
    struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    struct cmsghdr *header;
    size_t length = 0;
    ssize_t got;
    int client, whole;

    if (!wait_for(channel) || recvmsg(channel, &message, MSG_CMSG_CLOEXEC) != 1)
        return 0;
    header = CMSG_FIRSTHDR(&message);
    if (header == NULL || header->cmsg_type != SCM_RIGHTS)
        return 0;
    memcpy(&client, CMSG_DATA(header), sizeof client);
    while (length < 2 || list[length - 1] != 0 || list[length - 2] != 0) {
        if (length == sizeof list || !wait_for(channel))
            break;
        got = read(channel, list + length, sizeof list - length);
        if (got <= 0)
            break;
        length += (size_t) got;
    }
    whole = length >= 2 && list[length - 1] == 0 && list[length - 2] == 0;
    if (whole && send(client, banner, sizeof banner - 1, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
        gone++;
    close(client);
    return whole;
}

int main(int argc, char **argv)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct sigaction action = {.sa_handler = on_signal};
    long taken = 0, bad = 0;
    int listener, channel;

    if (argc != 2 || strlen(argv[1]) >= sizeof address.sun_path) {
        fprintf(stderr, "usage: receiver SOCKET\n");
        return 2;
    }
    sigaction(SIGTERM, &action, NULL);
    strcpy(address.sun_path, argv[1]);
    listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (listener < 0 || bind(listener, (struct sockaddr *) &address, sizeof address) < 0 || chmod(argv[1], 0666) < 0
        || listen(listener, 4096) < 0) {
        perror("receiver");
        return 1;
    }
    while (!stop) {
        channel = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        if (channel < 0)
            continue;
        if (receive(channel))
            taken++;
        else
            bad++;
        close(channel);
    }
    printf("{\"taken\": %ld, \"bad\": %ld, \"gone\": %ld}\n", taken, bad, gone);
    return 0;
}
