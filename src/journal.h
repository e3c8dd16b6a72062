/* SPDX-License-Identifier: Apache-2.0
 *
 * The journal by its native protocol (https://systemd.io/JOURNAL_NATIVE_PROTOCOL): what a container writes, as it
 * was written. The monitor uses this, and so does a command in the foreground (src/_journal.c).
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* `fd` is a datagram socket that is connected to journald's. Entries are sent in the name of `pid`. More than
 * `burst` lines at once and `rate` lines a second are dropped; a rate of 0 is no limit. */
void journal_open(int fd, pid_t pid, const char *identifier, unsigned rate, unsigned burst);

/* How many of the bytes were taken: fewer than `length` where journald has no room. stream: 0 output, 1 errors */
size_t journal_write(int stream, const char *data, size_t length);
void journal_end(int stream);   /* nothing will come: what has no newline is a line all the same */
int journal_flush(void);        /* send what was taken: false where journald has no room */
int journal_blocked(void);      /* the socket, where poll is to wait for room (POLLOUT) with something to send; or -1 */
int64_t journal_deadline(void); /* when journal_flush has something to say though nothing comes; 0 is never */
void journal_rest(void);        /* nothing will come for a while: give memory back */
void journal_close(void);       /* half lines too; it waits until journald has read everything, or gives up */
