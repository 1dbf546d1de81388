/* utf8.h - is it UTF-8, and where does the last whole character end. Overlong forms, surrogates and code points past
 * U+10FFFF are not UTF-8.                                                                                            */
#ifndef PARE_BASE_UTF8_H
#define PARE_BASE_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* On false, *bad (when given) is the offset of the first wrong byte. */
bool utf8_valid(const char *bytes, size_t n, size_t *bad);

/* Length of the longest prefix that does not end inside a character which more bytes could complete. A stream holds
 * back the rest. Bytes that can never become valid count as complete. */
size_t utf8_whole(const char *bytes, size_t n);

/* Into `size` bytes with a NUL, cut between two characters. NULL is the empty text. */
void utf8_copy(char *to, size_t size, const char *from);

/* One code point; returns the bytes used (>= 1 when n > 0), *cp = 0xFFFD for a wrong byte (1 byte used). */
size_t utf8_decode(const char *bytes, size_t n, uint32_t *cp);
size_t utf8_encode(uint32_t cp, char out[4]);

#endif
