/* SPDX-License-Identifier: Apache-2.0
 *
 * Each line of a container's output becomes an entry of the journal, byte for byte. A line longer than 16 KiB becomes
 * several entries with docker's marks, CONTAINER_PARTIAL_*; a last line without a newline has the marks too.
 *
 * Entries are collected and sent as one datagram: journald accepts any number in one, looks up the sender once, and
 * the order of both streams is kept. They are sent in the name of the container's first process (datagram.c).
 */
#define _GNU_SOURCE
#include "journal.h"
#include "datagram.h"
#include "text.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum {
    LINE = 16384,             /* docker's bound for one entry */
    IDENTIFIER = 256,
    HEAD = 512 + IDENTIFIER,  /* the fields of an entry other than its text */
    BATCH = 32768,
    PAGE = 4096,
    ID = 16,                  /* random bytes in the id of a long line */
    THOUSAND = 1000,
    UNIT = 1024,              /* bytes that count as one line for the rate */
    PAUSE = 5 * SECOND,       /* for how long lines are dropped once there are too many */
    PATIENCE = 4 * SECOND,    /* at the end, with a journald that reads nothing */
};

enum ending { NEWLINE, FULL, END };

static char texts[2][LINE] __attribute__((aligned(PAGE)));
static char entries[BATCH] __attribute__((aligned(PAGE)));

static struct line { /* a line whose newline has not come yet */
    size_t length;
    uint64_t ordinal; /* of the last entry sent for this line; 0 is none */
    char id[2 * ID + 1];
} lines[2];

static struct {
    size_t length, most; /* bytes to send now; the most since memory was released */
    uint64_t lines, told; /* lines in it; dropped lines that it reports */
} batch;

static struct {
    int fd;
    struct sockaddr_un address;
    socklen_t address_length;
    char identifier[IDENTIFIER];
} journal = {.fd = -1};

static struct {
    uint64_t rate, burst, left; /* rate: lines a second; the others: thousandths of a line */
    int64_t counted, until;     /* when `left` was computed; until when lines are dropped, or 0 */
    uint64_t dropped;
} limit;

void journal_open(int fd, pid_t pid, const char *identifier, unsigned rate, unsigned burst)
{
    journal.fd = fd;
    datagram_from(pid);
    journal.address_length = sizeof journal.address;
    if (getpeername(fd, (struct sockaddr *)&journal.address, &journal.address_length) < 0)
        journal.address_length = 0;
    strncpy(journal.identifier, identifier, IDENTIFIER - 1);
    limit.rate = rate;
    limit.left = limit.burst = (uint64_t)(burst > rate ? burst : rate) * THOUSAND;
    limit.counted = milliseconds();
}

/* Sending */

static int is_too_long(int error)
{
    return error == EMSGSIZE || error == ENOBUFS;
}

static int is_gone(int error)
{
    return error == ECONNREFUSED || error == ENOTCONN || error == ECONNRESET || error == EPIPE;
}

/* Returns whether nothing is left to send. Lines that cannot be sent count as dropped: their journal is gone. */
static int send_batch(void)
{
    for (int tries = 0; batch.length;) {
        ssize_t sent = datagram_send(journal.fd, entries, batch.length);
        if (sent < 0 && is_too_long(errno))
            sent = datagram_send_file(journal.fd, entries, batch.length);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0 && errno == EAGAIN)
            return 0;
        /* journald has a new socket: connect to it, once */
        if (sent < 0 && is_gone(errno) && !tries++ &&
            connect(journal.fd, (struct sockaddr *)&journal.address, journal.address_length) == 0)
            continue;
        if (sent < 0)
            limit.dropped += batch.lines + batch.told;
        batch.length = batch.lines = batch.told = 0;
    }
    return 1;
}

/* Entries */

static char *put_field(char *end, const char *name, const char *value)
{
    return put_text(put_text(put_text(end, name), value), "\n");
}

static char *put_head(char *end, const char *priority, const char *stream)
{
    end = put_field(end, "PRIORITY=", priority);
    end = put_field(end, "SYSLOG_IDENTIFIER=", journal.identifier);
    return put_field(end, "SYSBOX_STREAM=", stream);
}

/* docker's fields for a line in pieces. A piece without a newline is marked as continued. */
static char *put_marks(char *end, struct line *line, enum ending ending)
{
    if (ending == NEWLINE && !line->ordinal)
        return end;
    if (!line->ordinal++) {
        static const char hex[] = "0123456789abcdef";
        unsigned char random[ID] = {0};
        if (getrandom(random, sizeof random, GRND_NONBLOCK) < 0)
            memset(random, 0, sizeof random);
        for (int i = 0; i < ID; i++) {
            line->id[2 * i] = hex[random[i] >> 4];
            line->id[2 * i + 1] = hex[random[i] & 15];
        }
    }
    if (ending != NEWLINE)
        end = put_field(end, "CONTAINER_PARTIAL_MESSAGE=", "true");
    end = put_field(end, "CONTAINER_PARTIAL_ID=", line->id);
    end = put_text(put_number(put_text(end, "CONTAINER_PARTIAL_ORDINAL="), line->ordinal), "\n");
    end = put_field(end, "CONTAINER_PARTIAL_LAST=", ending == FULL ? "false" : "true");
    if (ending != FULL)
        line->ordinal = 0;
    return end;
}

static char *put_size(char *end, uint64_t size)
{
    for (int i = 0; i < 8; i++, size >>= 8)
        *end++ = (char)(size & 0xff); /* little-endian */
    return end;
}

static int make_room(size_t length)
{
    return batch.length + HEAD + length <= BATCH || send_batch();
}

static void end_entry(char *end)
{
    *end++ = '\n'; /* an empty line separates entries */
    batch.length = (size_t)(end - entries);
    if (batch.length > batch.most)
        batch.most = batch.length;
}

/* Put an entry that says how many lines are missing here. */
static int tell_dropped(void)
{
    if (!make_room(0))
        return 0;
    char *end = put_head(entries + batch.length, "4", "stderr");
    end = put_text(put_number(put_text(end, "SYSBOX_DROPPED="), limit.dropped), "\nMESSAGE=sysbox: ");
    end = put_text(put_number(end, limit.dropped), " lines dropped");
    if (limit.rate)
        end = put_text(put_number(put_text(end, ": more than "), limit.rate), " a second (--log-opt rate-limit)");
    *end++ = '\n';
    end_entry(end);
    batch.told += limit.dropped;
    limit.dropped = 0;
    return 1;
}

static uint64_t cost_of(size_t length)
{
    uint64_t cost = (1 + length / UNIT) * THOUSAND;
    return cost > limit.burst ? limit.burst : cost;
}

static int is_too_much(uint64_t cost)
{
    if (limit.rate && !limit.until && cost > limit.left)
        limit.until = milliseconds() + PAUSE;
    return limit.until != 0;
}

/* Put a line, or a piece of one: the bytes kept before, and `count` more. False if journald has no room. */
static int put_entry(int stream, const char *data, size_t count, enum ending ending)
{
    struct line *line = &lines[stream];
    size_t length = line->length + count;
    uint64_t cost = cost_of(length);
    if (is_too_much(cost)) {
        limit.dropped += ending != FULL;
        line->length = line->ordinal = 0;
        return 1;
    }
    if ((limit.dropped && !tell_dropped()) || !make_room(length))
        return 0;
    if (limit.rate)
        limit.left -= cost;
    char *end = put_head(entries + batch.length, stream ? "3" : "6", stream ? "stderr" : "stdout");
    end = put_size(put_text(put_marks(end, line, ending), "MESSAGE\n"), length);
    memcpy(end, texts[stream], line->length);
    memcpy(end + line->length, data, count);
    end += length;
    *end++ = '\n';
    end_entry(end);
    batch.lines++;
    line->length = 0;
    return 1;
}

/* Add to `left` what the rate allows by now. */
static void count(void)
{
    if (!limit.rate)
        return;
    int64_t now = milliseconds();
    limit.left += limit.rate * (uint64_t)(now - limit.counted); /* a thousandth each millisecond */
    limit.counted = now;
    if (limit.left > limit.burst)
        limit.left = limit.burst;
    if (limit.until && now >= limit.until && (!limit.dropped || tell_dropped()))
        limit.until = 0;
}

int journal_admit(size_t length)
{
    uint64_t cost = cost_of(length);
    count();
    if (is_too_much(cost)) {
        limit.dropped++;
        return 0;
    }
    if (limit.rate)
        limit.left -= cost;
    return 1;
}

void journal_count_dropped(void)
{
    limit.dropped++;
}

size_t journal_write(int stream, const char *data, size_t length)
{
    struct line *line = &lines[stream];
    size_t taken = 0;
    count();
    while (taken < length) {
        const char *from = data + taken;
        size_t room = LINE - line->length, left = length - taken, most = left < room ? left : room;
        const char *newline = memchr(from, '\n', most);
        size_t size = newline ? (size_t)(newline - from) : most;
        if (!newline && size < room) {
            memcpy(texts[stream] + line->length, from, size);
            line->length += size;
            if (line->length > batch.most)
                batch.most = line->length;
            return length;
        }
        if (!put_entry(stream, from, size, newline ? NEWLINE : FULL))
            return taken;
        taken += size + (newline != NULL);
    }
    return taken;
}

/* Put the half line. False if journald has no room; journal_close tries again. */
static int put_rest(int stream)
{
    return (!lines[stream].length && !lines[stream].ordinal) || put_entry(stream, "", 0, END);
}

void journal_end(int stream)
{
    put_rest(stream);
}

int journal_flush(void)
{
    if (limit.until)
        count();
    return send_batch();
}

int journal_blocked(void)
{
    return batch.length ? journal.fd : -1;
}

int64_t journal_deadline(void)
{
    return limit.dropped && !batch.length ? limit.until : 0;
}

/* The first page of each buffer stays: most need no more. */
void journal_rest(void)
{
    if (batch.length || batch.most <= PAGE)
        return;
    madvise(entries + PAGE, sizeof entries - PAGE, MADV_DONTNEED);
    for (int stream = 0; stream < 2; stream++)
        if (!lines[stream].length)
            madvise(texts[stream] + PAGE, LINE - PAGE, MADV_DONTNEED);
    batch.most = 0;
}

static int wait_for_room(int64_t *deadline)
{
    struct pollfd ready = {.fd = journal.fd, .events = POLLOUT};
    int64_t left = *deadline - milliseconds();
    if (left <= 0)
        return 0;
    if (poll(&ready, 1, (int)left) > 0)
        *deadline = milliseconds() + PATIENCE;
    return 1;
}

void journal_close(void)
{
    int64_t deadline = milliseconds() + PATIENCE;
    if (journal.fd < 0)
        return;
    for (int stream = 0; stream < 2; stream++)
        while (!put_rest(stream))
            if (!wait_for_room(&deadline))
                return;
    while ((limit.dropped && !tell_dropped()) || !send_batch())
        if (!wait_for_room(&deadline))
            return;
    datagram_await_read(journal.fd, "#\n", 2); /* a comment */
    close(journal.fd);
    journal.fd = -1;
}
