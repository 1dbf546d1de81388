/* hash.h - fast 64-bit hashes for tables, SHA-256 for identity, and comparing secrets.
 *
 * hash64 is seeded per process where strangers choose the keys (hash_seed), so that nobody can prepare collisions.  */
#ifndef PARE_BASE_HASH_H
#define PARE_BASE_HASH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

uint64_t hash64(const void *data, size_t n, uint64_t seed);
uint64_t hash_seed(void); /* random, the same for the life of the process */

/* When OpenSSL fails (out of memory), the digest is random: it equals nothing, so no stored answer is taken for it. */
typedef struct sha256 {
    uint8_t bytes[32];
} sha256;

typedef struct sha256_state sha256_state; /* heap; NULL when out of memory */
sha256_state               *sha256_begin(void);
void                        sha256_add(sha256_state *s, const void *data, size_t n);
sha256                      sha256_end(sha256_state *s); /* frees s */
sha256                      sha256_of(const void *data, size_t n);

void hex_encode(const void *data, size_t n, char *out); /* 2n characters and a NUL */
bool hex_decode(const char *text, void *out, size_t n); /* exactly 2n hex digits, either case */

bool secret_equal(const void *a, const void *b, size_t n); /* time does not depend on the contents */
bool random_bytes(void *out, size_t n);

#endif
