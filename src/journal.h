/* SPDX-License-Identifier: Apache-2.0
 *
 * Send a container's output to the journal, byte for byte, by the native protocol
 * (https://systemd.io/JOURNAL_NATIVE_PROTOCOL). The monitor uses this, and so does a command in the foreground
 * (src/_journal.c).
 */
#pragma once

#include <poll.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* `fd` is a datagram socket that is connected to journald's. Entries are sent in the name of `pid`. More than
 * `burst` lines at once and `rate` lines a second are dropped; a rate of 0 is no limit. */
void journal_open(int fd, pid_t pid, const char *identifier, unsigned rate, unsigned burst);

/* Returns how many bytes were taken: fewer than `length` if journald has no room. stream: 0 output, 1 errors */
size_t journal_write(int stream, const char *data, size_t length);
void journal_end(int stream);   /* the stream has ended: send a last line without newline */
int journal_flush(void);        /* send what was taken; false if journald has no room */
int journal_blocked(void);      /* the socket if poll must wait for room there (POLLOUT), else -1 */
int64_t journal_deadline(void); /* when to call journal_flush without new output; 0 is never */
void journal_rest(void);        /* no output at the moment: release memory */
void journal_close(void);       /* send half lines too; waits until journald has read everything, or gives up */

/* For syslog.c */
int journal_admit(size_t length);  /* whether the rate allows a message; it is counted, as sent or as dropped */
void journal_count_dropped(void);  /* a message that was admitted is lost */

/* syslog.c: /dev/log of the container; `in` is its socket. After journal_open */
void syslog_open(int in);
int syslog_ready(void);            /* pass messages on; the socket to wait for (POLLOUT) if journald has no room, else -1 */
struct pollfd syslog_poll(void);   /* what to wait for before the next call */
void syslog_close(void);           /* pass on what has come; waits until journald has read it, or gives up */
