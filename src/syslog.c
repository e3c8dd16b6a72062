/* SPDX-License-Identifier: Apache-2.0
 *
 * What processes of the container send to /dev/log, by syslog(3), goes to journald's own socket for it.
 *
 * journald files a message under the unit of the process that it names. The container cannot have journald's socket
 * itself: the sender may have ended before journald asks for its unit, as logger(1) mostly has, and then the message
 * belongs to no unit, and no rate limit applies. So it is sent again, in the name of the container's first process
 * (see datagram.c), and counts against the rate of the container's lines. Descriptors that come with it are closed by
 * the kernel, since there is no room for them (unix(7)).
 *
 * The tag and the text are the container's. The priority is changed where it would reach further than the journal:
 * journald shows level 0 to every user who is logged in (journald.conf(5), MaxLevelWall=), and a syslog daemon of the
 * host would take facilities such as auth for the host's own.
 */
#define _GNU_SOURCE
#include "journal.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "datagram.h"
#include "text.h"

enum {
    MESSAGE = 16384,    /* bytes; what is longer is cut, as docker cuts a line */
    ROOM = 8,           /* in front of it, for a priority that it does not have */
    AT_ONCE = 32,       /* messages that are passed on before other work */
    QUEUED = 1024,      /* more than the socket holds (net.unix.max_dgram_qlen) */
    PATIENCE = 4 * SECOND,
    LEVELS = 8,
    EMERGENCY = 0, ALERT = 1, INFO = 6, /* levels: syslog(3) */
    USER = 1,                           /* a facility */
    FACILITIES = 24,
};
/* kern, auth, syslog, authpriv */
#define RESERVED (1u << 0 | 1u << 4 | 1u << 5 | 1u << 10)

static char buffer[ROOM + MESSAGE] __attribute__((aligned(4096)));

static struct {
    int in, out;     /* the container's socket, and one that is connected to journald's */
    char *from;      /* what journald has yet to get */
    size_t length;
    int used;        /* whether anything was sent */
} devlog = {.in = -1, .out = -1};

void syslog_open(int in)
{
    devlog.in = in;
}

static int connect_out(void)
{
    static const struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "/run/systemd/journal/dev-log"};
    if (devlog.out < 0)
        devlog.out = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    return devlog.out < 0 ? -1 : connect(devlog.out, (const struct sockaddr *)&address, sizeof address);
}

/* Returns whether nothing is left to send. A message that cannot be sent counts as dropped. */
static int pass_on(void)
{
    for (int tries = 0; devlog.length;) {
        if (devlog.out >= 0 && datagram_send(devlog.out, devlog.from, devlog.length) >= 0)
            devlog.used = 1;
        else if (devlog.out >= 0 && errno == EINTR)
            continue;
        else if (devlog.out >= 0 && errno == EAGAIN)
            return 0;
        else if (!tries++ && connect_out() == 0) /* the first message, or journald has a new socket */
            continue;
        else
            journal_count_dropped();
        devlog.length = 0;
    }
    return 1;
}

/* The priority in front of `*text`, which is moved behind it, as journald finds it: after white space, "<", one to
 * three digits, ">". Without one it is that of an ordinary message. */
static unsigned take_priority(char **text, const char *end)
{
    char *at = *text;
    unsigned priority = 0, digits = 0;
    while (at < end && strchr(" \t\n\r", *at) && *at)
        at++;
    if (at < end && *at == '<') {
        char *digit = at + 1;
        for (; digit < end && *digit >= '0' && *digit <= '9' && digits < 3; digit++, digits++)
            priority = priority * 10 + (unsigned)(*digit - '0');
        if (digits && digit < end && *digit == '>') {
            *text = digit + 1;
            return priority;
        }
    }
    return USER * LEVELS + INFO;
}

static void set_priority(size_t length)
{
    char *text = buffer + ROOM, *const end = text + length;
    unsigned priority = take_priority(&text, end);
    unsigned facility = priority / LEVELS, level = priority % LEVELS;
    if (facility >= FACILITIES || RESERVED & 1u << facility)
        facility = USER;
    if (level == EMERGENCY)
        level = ALERT;
    char *from = text;
    *--from = '>';
    unsigned left = facility * LEVELS + level;
    do
        *--from = (char)('0' + left % 10);
    while (left /= 10);
    *--from = '<';
    devlog.from = from;
    devlog.length = (size_t)(end - from);
}

/* Take a message, if there is one. */
static int take(void)
{
    ssize_t length = recv(devlog.in, buffer + ROOM, MESSAGE, MSG_DONTWAIT);
    if (length < 0)
        return 0;
    if (length && journal_admit((size_t)length))
        set_priority((size_t)length);
    return 1;
}

int syslog_ready(void)
{
    for (int count = 0; count < AT_ONCE; count++)
        if (!pass_on())
            return devlog.out;
        else if (devlog.in < 0 || !take())
            return -1;
    return pass_on() ? -1 : devlog.out;
}

struct pollfd syslog_poll(void)
{
    if (devlog.length)
        return (struct pollfd){.fd = devlog.out, .events = POLLOUT};
    return (struct pollfd){.fd = devlog.in, .events = POLLIN};
}

/* At the end others may still send: what was there when the container ended is passed on. */
void syslog_close(void)
{
    int64_t deadline = milliseconds() + PATIENCE;
    if (devlog.in < 0)
        return;
    for (int count = 0; count < QUEUED; count++) {
        while (!pass_on()) {
            struct pollfd ready = {.fd = devlog.out, .events = POLLOUT};
            int64_t left = deadline - milliseconds();
            if (left <= 0 || poll(&ready, 1, (int)left) < 0)
                break;
        }
        if (devlog.length || !take())
            break;
    }
    close(devlog.in);
    devlog.in = -1;
    if (devlog.used)
        datagram_await_read(devlog.out, "", 0); /* it ignores an empty message */
}
