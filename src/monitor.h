/* SPDX-License-Identifier: Apache-2.0
 *
 * What monitor.c has of the other parts, which know nothing of it. No heap, no buffered I/O: each of its pages is paid for once for
 * every container.
 */
#pragma once

#include "journal.h"
#include "text.h"

#include <poll.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* usage.c: what the container's cgroup has used, and whether it ran out of memory; descriptors may be -1 */
enum { USAGE_FDS = 2 };
void usage_watch_oom(int file, int event, void (*killed)(void)); /* called when somebody was, for lack of memory */
void usage_watch_events(int file);
void usage_add_report(const char *name, int file);
void usage_poll(struct pollfd fds[USAGE_FDS]);
void usage_ready(const struct pollfd fds[USAGE_FDS]);
void usage_read(void);           /* one last time */
int usage_oom(void);             /* whether somebody was killed for lack of memory */
int64_t usage_turn(void);        /* looks whether somebody was; when to look again, 0 is never */
char *usage_put(char *end);      /* "name":"text",... */
enum { USAGE_SPACE = 4 * (264 + 2 * 4096) }; /* that it may take */

/* output.c: from the container to the journal, to a file, and to those who are attached */
enum { PUMPS = 2, CLIENTS = 64, OUTPUT_FDS = PUMPS + 2 + CLIENTS };
void output_add(int in); /* its standard output, and then its standard error; or its terminal */
void output_log(int fd, pid_t pid, const char *identifier, unsigned rate, unsigned burst); /* see journal.h */
void output_listen(int fd, int wait_for_first);
void output_give(int input); /* what the container reads from, for those who are attached to write to */
void output_poll(struct pollfd fds[OUTPUT_FDS]);
void output_ready(const struct pollfd fds[OUTPUT_FDS]);
int64_t output_deadline(void); /* when to look again though nothing is ready; 0 is never */
void output_end(int code);     /* take what it wrote last, and tell how it ended */

/* jsonlog.c: docker's json-file */
void jsonlog_open(const char *path, uint64_t max_size, int max_files, const char *beside); /* in each line, as JSON */
int jsonlog_is_open(void);
void jsonlog_write(int stream, const char *data, size_t length); /* stream: 0 output, 1 errors */
void jsonlog_close(void);

/* helper.c: the command, run when something has happened */
void helper_command(char *launcher, char *id);
void helper_watch(const char *directory); /* where systemd leaves what others change; SIGIO says so */
void helper_changed(void);
void helper_tell_oom(void); /* that somebody was killed for lack of memory */
int helper_told_oom(void);  /* whether all of that was told; waits for one that is doing so */
void helper_reap(void);
int64_t helper_turn(void); /* starts what is due; when the next one is, 0 is never */
