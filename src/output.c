/* SPDX-License-Identifier: Apache-2.0
 *
 * Copies the container's output to the journal or a file, and to the clients that are attached.
 *
 * A client is a connection to a socket of sequenced packets. The first packet to it is "H", with the descriptor of
 * the container's input if there is one (unix(7), SCM_RIGHTS): the client writes there directly, and sets the size
 * of a terminal. Each packet after that is one byte, '1' or '2', and output of that stream; the last is "E" and the
 * exit status. "C" from a client closes the container's input. A slow client slows the container down, as a pipe
 * would. A client for which there is no room gets "F" instead of "H".
 */
#define _GNU_SOURCE
#include "monitor.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BUFFER = 4096, FIRST = 5 * SECOND, JOURNAL_PATIENCE = 4 * SECOND };
enum { LISTENER = PUMPS, JOURNAL, SYSLOG, CLIENT }; /* indices among the polled descriptors */

static struct pump {
    int in;
    size_t length, written; /* bytes read, and how many of them the journal has */
    char buffer[1 + BUFFER];
} pumps[PUMPS];
static int pump_count;
static int logged;     /* to the journal */
static uint64_t moved; /* bytes and packets that were passed on so far */

static struct client {
    int fd;
    unsigned owed; /* a bit for each pump whose buffer the client has yet to get */
} clients[CLIENTS];
static int client_count; /* slots that are or have been in use */
static int listener = -1, input = -1;
static int64_t first; /* until when to wait for the first client, reading nothing; 0: not */

/* Our end must not block: the container can open the other end and read what poll has announced. */
void output_add(int in)
{
    fcntl(in, F_SETFL, fcntl(in, F_GETFL) | O_NONBLOCK);
    if (pump_count < PUMPS)
        pumps[pump_count++] = (struct pump){.in = in};
}

void output_log(int fd, pid_t pid, const char *identifier, unsigned rate, unsigned burst)
{
    journal_open(fd, pid, identifier, rate, burst);
    logged = 1;
}

void output_listen(int fd, int wait_for_first)
{
    listener = fd;
    if (wait_for_first)
        first = milliseconds() + FIRST;
}

void output_give(int fd)
{
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK); /* clients write to it */
    input = fd;
}

static void leave(struct client *client)
{
    close(client->fd);
    *client = (struct client){.fd = -1};
}

static void serve(struct client *client)
{
    for (int i = 0; i < pump_count && client->fd >= 0; i++) {
        if (!(client->owed & 1u << i))
            continue;
        if (send(client->fd, pumps[i].buffer, 1 + pumps[i].length, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0) {
            client->owed &= ~(1u << i);
            moved++;
        } else if (errno != EAGAIN && errno != EINTR) {
            leave(client);
        }
    }
}

static int owed(int pump)
{
    for (int i = 0; i < client_count; i++)
        if (clients[i].owed & 1u << pump)
            return 1;
    return 0;
}

static void flush(struct pump *pump)
{
    int index = (int)(pump - pumps);
    if (logged && pump->written < pump->length) {
        size_t taken = journal_write(index, pump->buffer + 1 + pump->written, pump->length - pump->written);
        pump->written += taken;
        moved += taken;
        if (pump->written < pump->length)
            return; /* the journal has no room */
    }
    pump->written = pump->length;
    if (!owed(index))
        pump->length = pump->written = 0;
}

static void fill(struct pump *pump)
{
    int index = (int)(pump - pumps);
    ssize_t count = read(pump->in, pump->buffer + 1, BUFFER);
    if (count == 0 || (count < 0 && errno != EAGAIN && errno != EINTR)) {
        pump->in = -1;
        if (logged)
            journal_end(index);
    }
    if (count <= 0)
        return;
    pump->buffer[0] = (char)('1' + index);
    pump->length = (size_t)count;
    moved += pump->length;
    if (jsonlog_is_open())
        jsonlog_write(index, pump->buffer + 1, pump->length);
    for (int i = 0; i < client_count; i++)
        if (clients[i].fd >= 0) {
            clients[i].owed |= 1u << index;
            serve(&clients[i]);
        }
    flush(pump);
}

static void listen_to(struct client *client)
{
    char word = 0;
    ssize_t length = recv(client->fd, &word, sizeof word, MSG_DONTWAIT);
    if (length > 0 && word == 'C' && input >= 0) {
        close(input);
        input = -1;
    } else if (length == 0 || (length < 0 && errno != EAGAIN && errno != EINTR)) {
        leave(client);
    }
}

static void greet(void)
{
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0)
        return;
    int slot = 0;
    while (slot < client_count && clients[slot].fd >= 0)
        slot++;
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(int))];
    } control = {.header = {.cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET,
                            .cmsg_type = SCM_RIGHTS}};
    memcpy(CMSG_DATA(&control.header), &input, sizeof input);
    struct iovec part = {.iov_base = "H", .iov_len = 1};
    struct msghdr hello = {.msg_iov = &part, .msg_iovlen = 1};
    if (input >= 0) {
        hello.msg_control = control.space;
        hello.msg_controllen = sizeof control.space;
    }
    if (slot == CLIENTS) {
        send(fd, "F", 1, MSG_DONTWAIT | MSG_NOSIGNAL);
        close(fd);
        return;
    }
    if (sendmsg(fd, &hello, MSG_DONTWAIT | MSG_NOSIGNAL) < 0) {
        close(fd);
        return;
    }
    clients[slot] = (struct client){.fd = fd};
    if (slot == client_count)
        client_count++;
    first = 0;
}

void output_poll(struct pollfd fds[OUTPUT_FDS])
{
    int idle = 1;
    if (first && milliseconds() >= first)
        first = 0;
    for (int i = 0; i < PUMPS; i++) {
        int open = i < pump_count && !first && !pumps[i].length;
        fds[i] = (struct pollfd){.fd = open ? pumps[i].in : -1, .events = POLLIN};
        idle &= !pumps[i].length;
    }
    if (logged && idle)
        journal_rest();
    fds[LISTENER] = (struct pollfd){.fd = listener, .events = POLLIN};
    fds[JOURNAL] = (struct pollfd){.fd = logged ? journal_blocked() : -1, .events = POLLOUT};
    fds[SYSLOG] = syslog_poll();
    for (int i = 0; i < CLIENTS; i++) {
        struct client *client = &clients[i];
        fds[CLIENT + i] = (struct pollfd){.fd = i < client_count ? client->fd : -1,
                                          .events = POLLIN | (client->owed ? POLLOUT : 0)};
    }
}

void output_ready(const struct pollfd fds[OUTPUT_FDS])
{
    for (int i = 0; i < client_count; i++) {
        const struct pollfd *ready = &fds[CLIENT + i];
        struct client *client = &clients[i];
        if (client->fd < 0 || client->fd != ready->fd)
            continue;
        if (ready->revents & (POLLIN | POLLHUP | POLLERR))
            listen_to(client);
        if (client->fd >= 0 && client->owed)
            serve(client);
    }
    for (int i = 0; i < pump_count; i++)
        if (pumps[i].length)
            flush(&pumps[i]);
        else if (fds[i].revents)
            do
                fill(&pumps[i]);
            while (fds[i].revents & POLLHUP && pumps[i].in >= 0 && !pumps[i].length);
    if (fds[SYSLOG].revents)
        syslog_ready();
    if (logged)
        journal_flush();
    if (fds[LISTENER].revents)
        greet();
}

int64_t output_deadline(void)
{
    int64_t told = logged ? journal_deadline() : 0;
    return first && (!told || first < told) ? first : told;
}

/* Copy while there is progress: a client that does not read delays the end by a second, journald by four. */
void output_end(int code)
{
    uint64_t before = moved;
    int64_t since = milliseconds();
    for (;;) {
        struct pollfd fds[OUTPUT_FDS];
        int waiting = first != 0;
        output_poll(fds);
        for (int i = 0; i < pump_count; i++)
            waiting |= pumps[i].length != 0;
        if (poll(fds, OUTPUT_FDS, waiting ? SECOND / 10 : 0) <= 0 && !waiting)
            break;
        output_ready(fds);
        if (moved != before || first)
            since = milliseconds();
        else if (milliseconds() - since > (logged && journal_blocked() >= 0 ? JOURNAL_PATIENCE : SECOND))
            break;
        before = moved;
    }
    syslog_close();
    if (logged)
        journal_close();
    jsonlog_close();
    char last[8] = "E";
    char *end = put_number(last + 1, (uint64_t)code);
    for (int i = 0; i < client_count; i++)
        if (clients[i].fd >= 0)
            send(clients[i].fd, last, (size_t)(end - last), MSG_DONTWAIT | MSG_NOSIGNAL);
}
