/* SPDX-License-Identifier: Apache-2.0
 *
 * What monitor.c uses of the other parts, which do not call it. No heap, no buffered I/O: every container pays
 * for each page of this program.
 */
#pragma once

#include "journal.h"
#include "notify.h"
#include "text.h"

#include <poll.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* usage.c: what the container's cgroup has used, and kills for lack of memory; descriptors may be -1 */
enum { USAGE_FDS = 2 };
void usage_watch_oom(int file, int event, void (*killed)(void)); /* called at a kill for lack of memory */
void usage_watch_events(int file);
void usage_add_report(const char *name, int file);
void usage_poll(struct pollfd fds[USAGE_FDS]);
void usage_ready(const struct pollfd fds[USAGE_FDS]);
void usage_read(void);           /* for the last time */
int usage_oom(void);             /* whether a process was killed for lack of memory */
int64_t usage_turn(void);        /* look for such a kill; when to look again, 0 is never */
char *usage_put(char *end);      /* "name":"text",... */
enum { USAGE_SPACE = 4 * (264 + 2 * 4096) }; /* the most that usage_put writes */

/* output.c: from the container to the journal, to a file, and to attached clients */
enum { PUMPS = 2, CLIENTS = 64, OUTPUT_FDS = PUMPS + 3 + CLIENTS };
void output_add(int in); /* first its standard output, then its standard error; or its terminal */
void output_log(int fd, pid_t pid, const char *identifier, unsigned rate, unsigned burst); /* see journal.h */
void output_listen(int fd, int wait_for_first);
void output_give(int input); /* the container's input, which clients write to */
void output_poll(struct pollfd fds[OUTPUT_FDS]);
void output_ready(const struct pollfd fds[OUTPUT_FDS]);
int64_t output_deadline(void); /* when to call output_ready although nothing is ready; 0 is never */
void output_end(int code);     /* copy its last output, and send clients the exit status */

/* jsonlog.c: docker's json-file */
void jsonlog_open(const char *path, uint64_t max_size, int max_files, const char *beside); /* JSON for each line */
int jsonlog_is_open(void);
void jsonlog_write(int stream, const char *data, size_t length); /* stream: 0 output, 1 errors */
void jsonlog_close(void);

/* helper.c: run sysbox when something has happened */
void helper_command(char *launcher, char *id);
void helper_watch(const char *directory); /* in which systemd leaves changes by others; a change raises SIGIO */
void helper_changed(void);
void helper_tell_oom(void); /* a process was killed for lack of memory: run the helper */
int helper_told_oom(void);  /* whether the helper has reported every kill; waits for a running one */
void helper_reap(void);
int64_t helper_turn(void); /* starts the helpers that are due; when the next is due, 0 is never */
