#include "base/hash.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/clock.h"

/* ---- hash64: multiply two 64-bit words and fold the 128-bit product, 16 bytes a step.
 *
 * Source of the idea: wyhash (Wang Yi) and its kin. Both operands are masked with words made from the seed: with fixed
 * masks a stranger could choose bytes that make one factor zero and so collide under every seed. */

__extension__ typedef unsigned __int128 wide; /* the 64 x 64 -> 128 bit multiply has no name in C17 */

static uint64_t fold(uint64_t a, uint64_t b) {
    wide p = (wide)a * b;
    return (uint64_t)p ^ (uint64_t)(p >> 64);
}

static uint64_t read64(const unsigned char *p) {
    uint64_t v;
    memcpy(&v, p, 8);
    return v;
}

static uint64_t read32(const unsigned char *p) {
    uint32_t v;
    memcpy(&v, p, 4);
    return v;
}

uint64_t hash64(const void *data, size_t n, uint64_t seed) {
    const unsigned char *p = data;
    /* Digits of pi: numbers with nothing up their sleeve. */
    const uint64_t       mask_a = fold(seed ^ 0x243f6a8885a308d3u, 0x13198a2e03707345u);
    const uint64_t       mask_b = fold(seed ^ 0xa4093822299f31d1u, 0x082efa98ec4e6c89u);
    uint64_t             state = mask_a ^ n;
    size_t               left = n;
    for (; left > 16; left -= 16, p += 16) {
        state = fold(read64(p) ^ mask_b, read64(p + 8) ^ state);
    }
    uint64_t a = 0; /* the last 0 to 16 bytes; reads may overlap, n keeps the cases apart */
    uint64_t b = 0;
    if (left >= 8) {
        a = read64(p);
        b = read64(p + left - 8);
    } else if (left >= 4) {
        a = read32(p);
        b = read32(p + left - 4);
    } else if (left > 0) {
        a = (uint64_t)p[0] << 16 | (uint64_t)p[left >> 1] << 8 | p[left - 1];
    }
    state = fold(a ^ mask_b, b ^ state);
    return fold(state ^ mask_a, n ^ 0x452821e638d01377u);
}

static uint64_t       process_seed;
static pthread_once_t process_seed_once = PTHREAD_ONCE_INIT;

static void seed_init(void) {
    if (!random_bytes(&process_seed, sizeof(process_seed))) {
        process_seed = (uint64_t)clock_wall_us() * 0x9e3779b97f4a7c15u;
    }
}

uint64_t hash_seed(void) {
    pthread_once(&process_seed_once, seed_init);
    return process_seed;
}

/* ---- SHA-256 ---- */

struct sha256_state {
    EVP_MD_CTX *context;
    bool        failed;
};

static EVP_MD        *algorithm; /* fetched once: looking it up costs as much as hashing a short text */
static pthread_key_t  spare_key; /* each thread's last state, for its next digest: making one costs as much, too */
static bool           has_spare_key;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void state_free(void *state) {
    sha256_state *s = state;
    EVP_MD_CTX_free(s->context);
    free(s);
}

static void init(void) {
    algorithm = EVP_MD_fetch(NULL, "SHA256", NULL);
    has_spare_key = pthread_key_create(&spare_key, state_free) == 0;
}

/* OpenSSL fails when memory runs out. A random digest equals no other, so that nothing is taken for something else. */
static sha256 no_digest(void) {
    static uint64_t counter;
    sha256          d = {{0}};
    if (!random_bytes(d.bytes, sizeof(d.bytes))) {
        uint64_t at = (uint64_t)clock_us() ^ __atomic_fetch_add(&counter, 1, __ATOMIC_RELAXED) << 48;
        memcpy(d.bytes, &at, sizeof(at));
    }
    return d;
}

static sha256_state *state_new(void) {
    sha256_state *s = has_spare_key ? pthread_getspecific(spare_key) : NULL;
    if (s) {
        pthread_setspecific(spare_key, NULL);
        return s;
    }
    s = calloc(1, sizeof(*s));
    if (s && !(s->context = EVP_MD_CTX_new())) {
        free(s);
        return NULL;
    }
    return s;
}

static void state_keep(sha256_state *s) {
    s->failed = false;
    if (!has_spare_key || pthread_getspecific(spare_key) || pthread_setspecific(spare_key, s) != 0) {
        state_free(s);
    }
}

sha256_state *sha256_begin(void) {
    pthread_once(&once, init);
    sha256_state *s = algorithm ? state_new() : NULL;
    if (s && EVP_DigestInit_ex(s->context, algorithm, NULL) != 1) {
        state_free(s);
        return NULL;
    }
    return s;
}

void sha256_add(sha256_state *s, const void *data, size_t n) {
    if (n && EVP_DigestUpdate(s->context, data, n) != 1) {
        s->failed = true;
    }
}

sha256 sha256_end(sha256_state *s) {
    sha256 d;
    if (s->failed || EVP_DigestFinal_ex(s->context, d.bytes, NULL) != 1) {
        d = no_digest();
    }
    state_keep(s);
    return d;
}

sha256 sha256_of(const void *data, size_t n) {
    sha256_state *s = sha256_begin();
    if (!s) {
        return no_digest();
    }
    sha256_add(s, data, n);
    return sha256_end(s);
}

/* ---- hex, secrets, randomness ---- */

void hex_encode(const void *data, size_t n, char *out) {
    static const char    digits[] = "0123456789abcdef";
    const unsigned char *p = data;
    for (size_t i = 0; i < n; i++) {
        out[2 * i] = digits[p[i] >> 4];
        out[2 * i + 1] = digits[p[i] & 15];
    }
    out[2 * n] = '\0';
}

static int hex_digit(char c) {
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    if (c >= 'a' && c <= 'f') {
        return c - 'a' + 10;
    }
    if (c >= 'A' && c <= 'F') {
        return c - 'A' + 10;
    }
    return -1;
}

bool hex_decode(const char *text, void *out, size_t n) {
    unsigned char *p = out;
    for (size_t i = 0; i < n; i++) {
        int high = hex_digit(text[2 * i]);
        int low = high < 0 ? -1 : hex_digit(text[2 * i + 1]); /* never past a NUL */
        if (low < 0) {
            return false;
        }
        p[i] = (unsigned char)(high << 4 | low);
    }
    return text[2 * n] == '\0';
}

bool secret_equal(const void *a, const void *b, size_t n) {
    return CRYPTO_memcmp(a, b, n) == 0;
}

bool random_bytes(void *out, size_t n) {
    unsigned char *p = out;
    while (n) {
        ssize_t got = getrandom(p, n, 0);
        if (got < 0) {
            if (errno == EINTR) {
                continue;
            }
            return false;
        }
        p += got;
        n -= (size_t)got;
    }
    return true;
}
