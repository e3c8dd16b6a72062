/* SPDX-License-Identifier: Apache-2.0
 *
 * The log in docker's json-file format: one object a line, {"log":"text\n","stream":"stdout","time":"..."}.
 * A line longer than 16 KiB becomes several, all but the last without a newline; a byte that is not UTF-8
 * becomes U+FFFD. When FILE has reached its size it becomes FILE.1, the old FILE.1 becomes FILE.2, and so on.
 */
#define _GNU_SOURCE
#include "monitor.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h> /* rename */
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { LINE = 16384, WORST = 6, TAIL = 96 }; /* WORST: \uXXXX for a byte; TAIL: what follows the text */

static struct {
    int fd, max_files;
    uint64_t size, max_size; /* max_size 0: no limit */
    const char *beside; /* "attrs":{...}, or nothing */
    char path[PATH_MAX];
} file = {.fd = -1};

static char lines[2][LINE];
static size_t used[2];
static char entry[LINE * WORST + TAIL];

static void open_file(int flags)
{
    struct stat status;
    file.fd = open(file.path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW | flags, 0600);
    file.size = file.fd >= 0 && fstat(file.fd, &status) == 0 ? (uint64_t)status.st_size : 0;
}

void jsonlog_open(const char *path, uint64_t max_size, int max_files, const char *beside)
{
    if (strlen(path) + TAIL > sizeof file.path) {
        errno = ENAMETOOLONG;
        fail(path);
    }
    put_text(file.path, path);
    file.max_size = max_size;
    file.max_files = max_files;
    file.beside = beside;
    open_file(0);
    if (file.fd < 0)
        fail(path);
}

int jsonlog_is_open(void)
{
    return file.fd >= 0;
}

static const char *rotated(char *space, int number)
{
    char *end = put_text(space, file.path);
    if (number) {
        *end++ = '.';
        end = put_number(end, (uint64_t)number);
    }
    *end = '\0';
    return space;
}

static void rotate(void)
{
    char from[PATH_MAX], to[PATH_MAX];
    close(file.fd);
    for (int i = file.max_files - 1; i > 0; i--)
        rename(rotated(from, i - 1), rotated(to, i));
    if (file.max_files == 1)
        unlink(file.path); /* a new file instead of a truncated one, so that readers notice */
    open_file(O_TRUNC);
}

/* The length of the well-formed character that begins here, or 0 (RFC 3629). */
static size_t character(const unsigned char *text, size_t left)
{
    static const struct {
        unsigned char first, last, low, high;
        size_t length;
    } forms[] = {
        {0x00, 0x7f, 0, 0, 1},       {0xc2, 0xdf, 0x80, 0xbf, 2}, {0xe0, 0xe0, 0xa0, 0xbf, 3},
        {0xe1, 0xec, 0x80, 0xbf, 3}, {0xed, 0xed, 0x80, 0x9f, 3}, {0xee, 0xef, 0x80, 0xbf, 3},
        {0xf0, 0xf0, 0x90, 0xbf, 4}, {0xf1, 0xf3, 0x80, 0xbf, 4}, {0xf4, 0xf4, 0x80, 0x8f, 4},
    };
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        if (*text < forms[i].first || *text > forms[i].last)
            continue;
        if (forms[i].length > left)
            return 0;
        for (size_t at = 1; at < forms[i].length; at++) {
            unsigned char low = at == 1 ? forms[i].low : 0x80, high = at == 1 ? forms[i].high : 0xbf;
            if (text[at] < low || text[at] > high)
                return 0;
        }
        return forms[i].length;
    }
    return 0;
}

static char *put_string(char *end, const char *data, size_t length)
{
    static const char hex[] = "0123456789abcdef";
    const unsigned char *text = (const unsigned char *)data;
    while (length) {
        size_t size = character(text, length);
        if (!size) {
            end = put_text(end, "\\ufffd");
            size = 1;
        } else if (size > 1) {
            memcpy(end, text, size);
            end += size;
        } else if (*text == '\n' || *text == '"' || *text == '\\') {
            *end++ = '\\';
            *end++ = *text == '\n' ? 'n' : (char)*text;
        } else if (*text < ' ' || *text == 0x7f) {
            end = put_text(end, "\\u00");
            *end++ = hex[*text >> 4];
            *end++ = hex[*text & 15];
        } else {
            *end++ = (char)*text;
        }
        text += size;
        length -= size;
    }
    return end;
}

static char *put_padded(char *end, unsigned number, int digits)
{
    for (int i = digits; i-- > 0; number /= 10)
        end[i] = (char)('0' + number % 10);
    return end + digits;
}

static char *put_time(char *end)
{
    struct timespec now;
    struct tm utc;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    const struct {
        int number, digits;
        char after;
    } parts[] = {
        {utc.tm_year + 1900, 4, '-'}, {utc.tm_mon + 1, 2, '-'}, {utc.tm_mday, 2, 'T'},
        {utc.tm_hour, 2, ':'},        {utc.tm_min, 2, ':'},     {utc.tm_sec, 2, '.'},
        {(int)now.tv_nsec, 9, 'Z'},
    };
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        end = put_padded(end, (unsigned)parts[i].number, parts[i].digits);
        *end++ = parts[i].after;
    }
    return end;
}

static void write_line(int stream)
{
    if (!used[stream] || file.fd < 0)
        return;
    char *end = put_text(entry, "{\"log\":\"");
    end = put_string(end, lines[stream], used[stream]);
    end = put_text(end, stream ? "\",\"stream\":\"stderr\"," : "\",\"stream\":\"stdout\",");
    char *time = end;
    end = put_text(put_text(put_time(put_text(end, "\"time\":\"")), "\"}"), "\n");
    used[stream] = 0;
    struct iovec parts[] = {
        {.iov_base = entry, .iov_len = (size_t)(time - entry)},
        {.iov_base = (void *)(uintptr_t)file.beside, .iov_len = strlen(file.beside)},
        {.iov_base = time, .iov_len = (size_t)(end - time)},
    };
    size_t length = (size_t)(end - entry) + parts[1].iov_len;
    if (file.max_size && file.size && file.size + length > file.max_size)
        rotate();
    ssize_t written = writev(file.fd, parts, sizeof parts / sizeof *parts);
    if (written >= 0 && (size_t)written < length) /* a full disk: half a line would spoil the next one */
        written = ftruncate(file.fd, (off_t)file.size) ? written : 0;
    if (written > 0)
        file.size += (size_t)written;
}

void jsonlog_write(int stream, const char *data, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        lines[stream][used[stream]++] = data[i];
        if (data[i] == '\n' || used[stream] == LINE)
            write_line(stream);
    }
}

void jsonlog_close(void)
{
    for (int stream = 0; stream < 2; stream++)
        write_line(stream);
}
