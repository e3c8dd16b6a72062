/* SPDX-License-Identifier: Apache-2.0
 *
 * What the static programs share: text without a heap, the time, and how they fail. A put_ function writes at
 * `end` and returns the new end.
 */
#pragma once

#include <stdint.h>

enum { SECOND = 1000 }; /* milliseconds */
enum { FAILED = 125 };  /* exit status */

int64_t milliseconds(void); /* CLOCK_MONOTONIC */
char *put_text(char *end, const char *text);
char *put_number(char *end, uint64_t number);
_Noreturn void fail(const char *what); /* says what, and errno, on standard error */
