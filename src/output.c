/* SPDX-License-Identifier: Apache-2.0
 *
 * What the container writes: to the journal or a file, and to those who are attached.
 *
 * A client is a connection to a socket of sequenced packets. The first packet that it gets is "H", with the
 * descriptor that leads to the container's input where there is one (unix(7), SCM_RIGHTS): it writes there by
 * itself, and sets the size of a terminal. Each packet after that is one byte, '1' or '2', and what the container
 * wrote there, and at the end "E" and the exit status. "C" from a client closes the container's input. A slow
 * client slows the container down, as a pipe would.
 */
#define _GNU_SOURCE
#include "monitor.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BUFFER = 4096, FIRST = 5 * SECOND };

static struct pump {
    pid_t pid;
    int in, out;
    size_t length, written; /* of what was read, and how much of it the journal has */
    char buffer[1 + BUFFER];
} pumps[PUMPS];
static int pump_count;

static struct client {
    int fd;
    unsigned owed; /* a bit for each pump whose buffer it has yet to get */
} clients[CLIENTS];
static int client_count; /* of those that are or have been in use */
static int listener = -1, input = -1;
static int64_t first; /* until when to wait for the first client; nothing is read before */

void output_add(pid_t pid, int in, int out)
{
    if (pump_count < PUMPS)
        pumps[pump_count++] = (struct pump){.pid = pid, .in = in, .out = out};
}

void output_listen(int fd, int wait_for_first)
{
    listener = fd;
    if (wait_for_first)
        first = milliseconds() + FIRST;
}

void output_give(int fd)
{
    input = fd;
}

/* As the container: journald files a line under the unit of the process that the message names, which root
 * may choose (unix(7), SCM_CREDENTIALS). It is our child and not reaped yet, so the number is its own. */
static ssize_t send_as(pid_t pid, int fd, char *data, size_t length)
{
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(struct ucred))];
    } control = {.header = {.cmsg_len = CMSG_LEN(sizeof(struct ucred)), .cmsg_level = SOL_SOCKET,
                            .cmsg_type = SCM_CREDENTIALS}};
    struct ucred who = {.pid = pid, .uid = getuid(), .gid = getgid()};
    memcpy(CMSG_DATA(&control.header), &who, sizeof who);
    struct iovec part = {.iov_base = data, .iov_len = length};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control.space,
                             .msg_controllen = sizeof control.space};
    return sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
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
        if (send(client->fd, pumps[i].buffer, 1 + pumps[i].length, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0)
            client->owed &= ~(1u << i);
        else if (errno != EAGAIN && errno != EINTR)
            leave(client);
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
    while (pump->out >= 0 && pump->written < pump->length) {
        ssize_t count = send_as(pump->pid, pump->out, pump->buffer + 1 + pump->written,
                                pump->length - pump->written);
        if (count < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (count < 0) { /* the journal is gone: keep draining, or the container would block */
            pump->out = -1;
            break;
        }
        pump->written += (size_t)count;
    }
    pump->written = pump->length;
    if (!owed((int)(pump - pumps)))
        pump->length = pump->written = 0;
}

static void fill(struct pump *pump)
{
    int index = (int)(pump - pumps);
    ssize_t count = read(pump->in, pump->buffer + 1, BUFFER);
    if (count == 0 || (count < 0 && errno != EAGAIN && errno != EINTR))
        pump->in = -1;
    if (count <= 0)
        return;
    pump->buffer[0] = (char)('1' + index);
    pump->length = (size_t)count;
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
    if (slot == CLIENTS || sendmsg(fd, &hello, MSG_DONTWAIT | MSG_NOSIGNAL) < 0) {
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
    if (first && milliseconds() >= first)
        first = 0;
    for (int i = 0; i < PUMPS; i++) {
        struct pump *pump = &pumps[i];
        fds[i] = (struct pollfd){.fd = -1};
        if (i >= pump_count || first)
            continue;
        if (!pump->length)
            fds[i] = (struct pollfd){.fd = pump->in, .events = POLLIN};
        else if (pump->out >= 0 && pump->written < pump->length)
            fds[i] = (struct pollfd){.fd = pump->out, .events = POLLOUT};
    }
    fds[PUMPS] = (struct pollfd){.fd = listener, .events = POLLIN};
    for (int i = 0; i < CLIENTS; i++) {
        struct client *client = &clients[i];
        fds[PUMPS + 1 + i] = (struct pollfd){.fd = i < client_count ? client->fd : -1,
                                             .events = POLLIN | (client->owed ? POLLOUT : 0)};
    }
}

void output_ready(const struct pollfd fds[OUTPUT_FDS])
{
    for (int i = 0; i < client_count; i++) {
        const struct pollfd *ready = &fds[PUMPS + 1 + i];
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
            fill(&pumps[i]);
    if (fds[PUMPS].revents)
        greet();
}

int64_t output_deadline(void)
{
    return first;
}

void output_end(int code)
{
    int64_t deadline = milliseconds() + SECOND; /* for the journal to take it */
    while (milliseconds() < (first > deadline ? first : deadline)) {
        struct pollfd fds[OUTPUT_FDS];
        int waiting = first != 0;
        output_poll(fds);
        for (int i = 0; i < pump_count; i++)
            waiting |= pumps[i].length != 0;
        if (poll(fds, OUTPUT_FDS, waiting ? SECOND / 10 : 0) <= 0 && !waiting)
            break;
        output_ready(fds);
    }
    jsonlog_close();
    char last[8] = "E";
    char *end = put_number(last + 1, (uint64_t)code);
    for (int i = 0; i < client_count; i++)
        if (clients[i].fd >= 0)
            send(clients[i].fd, last, (size_t)(end - last), MSG_DONTWAIT | MSG_NOSIGNAL);
}
