/* SPDX-License-Identifier: Apache-2.0
 *
 * Putting text together without a heap, and the time. Each function returns where the text ends.
 */
#pragma once

#include <stdint.h>

enum { SECOND = 1000 }; /* milliseconds */

int64_t milliseconds(void); /* CLOCK_MONOTONIC */
char *put_text(char *end, const char *text);
char *put_number(char *end, uint64_t number);
