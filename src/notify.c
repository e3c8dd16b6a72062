/* SPDX-License-Identifier: Apache-2.0
 *
 * systemd takes a service's notifications from its main process only (NotifyAccess=main), which is this one. What
 * processes of the container send to their socket is read strictly, and only what concerns the container itself is
 * sent on: not MAINPID, FDSTORE, WATCHDOG_USEC and the like, which would hand the service over or change its settings.
 * Descriptors that come with a message are closed by the kernel, since there is no room for them (unix(7)): for
 * BARRIER=1 that is the answer.
 *
 * The socket is a file in the container's own mount namespace. A process that has got there and is in no cgroup of the
 * container, as one that shares its pid namespace may, is not heard.
 *
 * More time is for a start. Once it has said READY=1 it asks in vain: a container that says STOPPING=1, and goes on, would
 * have systemd wait for its end for as long as it likes, and a stop of its service, or of the host, with it.
 *
 * Each message costs systemd work, and a change of STATUS= a signal to each client of the bus. When too many come, the
 * rest stay in the socket, and who sends more waits: nothing is lost, and only the container is slowed down.
 */
#define _GNU_SOURCE
#include "notify.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "text.h"

enum {
    MESSAGE = 4096,  /* bytes; of longer ones systemd reads nothing either (NOTIFY_BUFFER_MAX of its source) */
    STATUS = 512,    /* bytes of STATUS= that are passed on */
    DIGITS = 19,     /* of a number: fewer than 2^63 */
    COST = 25,       /* milliseconds between two messages in the long run */
    CREDIT = 64 * COST,
    AT_ONCE = 16,    /* messages that are passed on before other work */
    PATIENCE = SECOND,
};

static struct {
    int in, out;
    pid_t pid;
    const char *cgroup;
    struct sockaddr_un address;
    socklen_t address_size;
    size_t length;        /* of what systemd has yet to get, in `sent` */
    int started;          /* it has said that it is ready */
    int64_t credit, then; /* milliseconds: what may be spent, and when that was so */
} notify = {.in = -1, .out = -1};

static char message[MESSAGE + 1] __attribute__((aligned(4096)));
static char sent[MESSAGE + 64];

void notify_open(int in, pid_t pid, const char *cgroup, const char *address)
{
    size_t length = strlen(address);
    if (!length || length >= sizeof notify.address.sun_path)
        return;
    notify.in = in;
    notify.pid = pid;
    notify.cgroup = cgroup;
    notify.address.sun_family = AF_UNIX;
    memcpy(notify.address.sun_path, address, length);
    if (*address == '@')
        notify.address.sun_path[0] = '\0';
    notify.address_size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length + (*address != '@'));
    notify.credit = CREDIT;
    notify.then = milliseconds();
}

/* Who may speak */

/* Whether a line of /proc/PID/cgroup, "number:controllers:path", is in the scope or below it. */
static int is_below(const char *line, const char *end)
{
    size_t length = strlen(notify.cgroup);
    for (int colons = 0; colons < 2; colons++) {
        line = memchr(line, ':', (size_t)(end - line));
        if (!line++)
            return 0;
    }
    return (size_t)(end - line) >= length && !memcmp(line, notify.cgroup, length) &&
           (line + length == end || line[length] == '/');
}

static int is_of_container(pid_t pid)
{
    char path[40], lines[MESSAGE];
    if (pid == notify.pid)
        return 1; /* a zombie, as it may be by now, is in no cgroup of v1 any more */
    if (pid <= 0)
        return 0;
    put_text(put_number(put_text(path, "/proc/"), (uint64_t)pid), "/cgroup");
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    ssize_t length = read(fd, lines, sizeof lines);
    close(fd);
    for (char *line = lines, *end; length > 0; length -= end + 1 - line, line = end + 1) {
        end = memchr(line, '\n', (size_t)length);
        if (is_below(line, end ? end : line + length))
            return 1;
        if (!end)
            break;
    }
    return 0;
}

/* What may be said */

/* The length of the character at `text` in UTF-8 (RFC 3629); 0: it is none, or a control character. */
static size_t character(const unsigned char *text, const unsigned char *end)
{
    unsigned first = text[0];
    if (first < 0x80)
        return first >= ' ' && first != 0x7f;
    size_t length = first >= 0xc2 && first <= 0xdf ? 2 : first >= 0xe0 && first <= 0xef ? 3 : first >= 0xf0 && first <= 0xf4 ? 4 : 0;
    if (!length || (size_t)(end - text) < length)
        return 0;
    unsigned low = first == 0xc2 ? 0xa0 : first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;
    unsigned high = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;
    if (text[1] < low || text[1] > high)
        return 0;
    for (size_t i = 2; i < length; i++)
        if (text[i] < 0x80 || text[i] > 0xbf)
            return 0;
    return length;
}

/* `systemctl status` prints it on the administrator's terminal. */
static char *put_status(char *to, const char *text, const char *end)
{
    to = put_text(to, "STATUS=");
    char *const most = to + STATUS;
    while (text < end) {
        size_t length = character((const unsigned char *)text, (const unsigned char *)end);
        if (to + (length ? length : 1) > most)
            break;
        if (length)
            memcpy(to, text, length);
        else
            *to = '?';
        to += length ? length : 1;
        text += length ? length : 1;
    }
    return put_text(to, "\n");
}

static int is_number(const char *text, const char *end)
{
    if (text == end || end - text > DIGITS)
        return 0;
    while (text < end && *text >= '0' && *text <= '9')
        text++;
    return text == end;
}

static int begins(const char *line, const char *end, const char *with)
{
    size_t length = strlen(with);
    return (size_t)(end - line) >= length && !memcmp(line, with, length);
}

/* The container's clock may differ from the host's (time_namespaces(7)), which is meant here. */
static char *put_moment(char *to)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    to = put_number(put_text(to, "MONOTONIC_USEC="), (uint64_t)now.tv_sec * 1000000U + (uint64_t)now.tv_nsec / 1000U);
    return put_text(to, "\n");
}

static int is_whole(const char *line, const char *end, const char *text)
{
    return begins(line, end, text) && (size_t)(end - line) == strlen(text);
}

static char *put_line(char *to, const char *line, const char *end)
{
    static const char *const whole[] = {"READY=1", "STOPPING=1", "RELOADING=1", "WATCHDOG=1", "WATCHDOG=trigger"};
    static const char *const numbers[] = {"EXTEND_TIMEOUT_USEC=", "ERRNO="}; /* the first one is for a start */
    for (size_t i = 0; i < sizeof whole / sizeof *whole; i++)
        if (is_whole(line, end, whole[i]))
            return put_text(put_text(to, whole[i]), "\n");
    for (size_t i = notify.started ? 1 : 0; i < sizeof numbers / sizeof *numbers; i++)
        if (begins(line, end, numbers[i]) && is_number(line + strlen(numbers[i]), end)) {
            memcpy(to, line, (size_t)(end - line));
            return put_text(to + (end - line), "\n");
        }
    if (begins(line, end, "STATUS="))
        return put_status(to, line + strlen("STATUS="), end);
    return to;
}

static const char *line_end(const char *line, const char *end)
{
    const char *stop = memchr(line, '\n', (size_t)(end - line));
    return stop ? stop : end;
}

/* Put into `sent` what may be passed on of a message: at most as much as it is long, and one moment. */
static void choose(const char *text, const char *end)
{
    char *to = sent;
    int moment = 0;
    /* systemd reads READY=1 first, wherever it stands */
    for (const char *line = text; line < end; line = line_end(line, end) + 1)
        notify.started = notify.started || is_whole(line, line_end(line, end), "READY=1");
    while (text < end) {
        const char *line = text, *stop = line_end(text, end);
        text = stop + 1;
        if (begins(line, stop, "MONOTONIC_USEC="))
            moment = 1;
        else
            to = put_line(to, line, stop);
    }
    if (moment && to != sent)
        to = put_moment(to);
    notify.length = (size_t)(to - sent);
}

/* Passing it on */

static int connect_out(void)
{
    if (notify.out < 0)
        notify.out = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    return notify.out < 0 ? -1 : connect(notify.out, (const struct sockaddr *)&notify.address, notify.address_size);
}

/* Returns whether nothing is left to send. What cannot be sent, since nobody listens there, is lost. */
static int pass_on(void)
{
    for (int tries = 0; notify.length;) {
        if (notify.out >= 0 && send(notify.out, sent, notify.length, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0)
            break;
        if (notify.out >= 0 && errno == EAGAIN)
            return 0;
        if (notify.out >= 0 && errno == EINTR)
            continue;
        if (tries++ || connect_out() < 0)
            break;
    }
    notify.length = 0;
    return 1;
}

/* Take a message, if there is one. */
static int take(void)
{
    char control[CMSG_SPACE(sizeof(struct ucred))] __attribute__((aligned(__alignof__(struct cmsghdr))));
    struct iovec part = {.iov_base = message, .iov_len = MESSAGE};
    struct msghdr header = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    ssize_t length = recvmsg(notify.in, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (length < 0)
        return 0;
    struct cmsghdr *found = CMSG_FIRSTHDR(&header);
    struct ucred who = {0};
    if (found && found->cmsg_level == SOL_SOCKET && found->cmsg_type == SCM_CREDENTIALS)
        memcpy(&who, CMSG_DATA(found), sizeof who);
    if (!(header.msg_flags & MSG_TRUNC) && is_of_container(who.pid))
        choose(message, message + length);
    return 1;
}

static int may_spend(void)
{
    int64_t now = milliseconds();
    notify.credit += now - notify.then;
    notify.then = now;
    if (notify.credit > CREDIT)
        notify.credit = CREDIT;
    return notify.credit >= COST;
}

void notify_ready(void)
{
    for (int count = 0; count < AT_ONCE && notify.in >= 0 && pass_on() && may_spend() && take(); count++)
        notify.credit -= COST;
    pass_on();
}

struct pollfd notify_poll(void)
{
    if (notify.in < 0)
        return (struct pollfd){.fd = -1};
    if (notify.length)
        return (struct pollfd){.fd = notify.out, .events = POLLOUT};
    return (struct pollfd){.fd = may_spend() ? notify.in : -1, .events = POLLIN};
}

int64_t notify_wait(void)
{
    return notify.in < 0 || notify.length || may_spend() ? 0 : COST - notify.credit;
}

void notify_close(void)
{
    int64_t deadline = milliseconds() + PATIENCE;
    for (int count = 0; notify.in >= 0 && count <= CREDIT / COST; count++) {
        while (!pass_on()) {
            struct pollfd room = {.fd = notify.out, .events = POLLOUT};
            int64_t left = deadline - milliseconds();
            if (left <= 0 || poll(&room, 1, (int)left) < 0)
                return;
        }
        if (!take())
            break;
    }
    pass_on();
}
