/* block_k_signed.c - Q3_K and Q6_K: superblocks of 256 values in 16 parts of 16 that have a signed scale each.
 *
 *   Q3_K  32 bytes of third bits, 64 bytes of bit pairs, 12 bytes with 16 six-bit scales, f16 d.
 *         value = d (scale - 32) (q - 4)
 *   Q6_K  128 bytes of low nibbles, 64 bytes of high bit pairs, 16 int8 scales, f16 d. value = d scale (q - 32)      */
#include "tensor/block_signed.h"

enum { PARTS = 16, PART = SUPER_VALUES / PARTS };

/* ---- Q3_K ---- */

/* A half of 128 values has 32 bytes of bit pairs. Of its four runs of 32 values, run r has pair i in byte i at 2 r.
 * Third bits: bit b of byte i belongs to value i of the b-th of the eight runs. Scales: the lower four bits of scale p
 * in byte p % 8, of parts 8 to 15 in the high half, the upper two in byte 8 + p % 4 at 2 (p / 4). */
static int q3_scale(const uint8_t *in, int p) {
    return ((in[p % 8] >> p / 8 * 4 & 15) | (in[8 + p % 4] >> p / 4 * 2 & 3) << 4) - 32;
}

void q3_k_out(const uint8_t *in, float *out, int64_t n) {
    for (int64_t k = 0; k < n; k += SUPER_VALUES, in += Q3_K_BYTES) {
        float d = f16_to_f32(load_u16(in + 108));
        for (int p = 0; p < PARTS; p++, out += PART) {
            const uint8_t *third = in + p % 2 * PART, *pairs = in + 32 + p / 8 * 32 + p % 2 * PART;
            float          step = d * (float)q3_scale(in + 96, p);
            for (int i = 0; i < PART; i++)
                out[i] = step * (float)((pairs[i] >> p / 2 % 4 * 2 & 3) + (third[i] >> p / 2 & 1) * 4 - 4);
        }
    }
}

void q3_k_in(const float *in, uint8_t *out, int64_t n) {
    static const signed_grid g = {
        .part = PART, .low = -4, .high = 3, .scale_low = -32, .all_scales = true, .nearer = -1.25f, .further = 2.5f};
    for (int64_t k = 0; k < n; k += SUPER_VALUES, out += Q3_K_BYTES) {
        signed_block s;
        signed_search(in + k, &g, &s);
        memset(out, 0, Q3_K_BYTES);
        for (int i = 0; i < SUPER_VALUES; i++) {
            int v = s.q[i] + 4, run = i / 32;
            out[i % 32] |= (uint8_t)(v >> 2 << run);
            out[32 + run / 4 * 32 + i % 32] |= (uint8_t)((v & 3) << run % 4 * 2);
        }
        for (int p = 0; p < PARTS; p++) {
            int v = s.scale[p] + 32;
            out[96 + p % 8] |= (uint8_t)((v & 15) << p / 8 * 4);
            out[104 + p % 4] |= (uint8_t)(v >> 4 << p / 4 * 2);
        }
        store_u16(out + 108, s.d);
    }
}

/* ---- Q6_K ---- */

/* A half of 128 values has 64 bytes of nibbles and 32 of bit pairs. Of its four runs of 32 values, run r has its
 * nibbles in byte 32 (r % 2) + i, low for runs 0 and 1, and its bit pair in byte i at 2 r. */
void q6_k_out(const uint8_t *in, float *out, int64_t n) {
    for (int64_t k = 0; k < n; k += SUPER_VALUES, in += Q6_K_BYTES) {
        float d = f16_to_f32(load_u16(in + 208));
        for (int p = 0; p < PARTS; p++, out += PART) {
            int            half = p / 8, run = p / 2 % 4, from = p % 2 * PART;
            const uint8_t *nibbles = in + half * 64 + run % 2 * 32 + from, *pairs = in + 128 + half * 32 + from;
            float          step = d * (float)(int8_t)in[192 + p];
            for (int i = 0; i < PART; i++) {
                int q = (nibbles[i] >> run / 2 * 4 & 15) | (pairs[i] >> run * 2 & 3) << 4;
                out[i] = step * (float)(q - 32);
            }
        }
    }
}

void q6_k_in(const float *in, uint8_t *out, int64_t n) {
    static const signed_grid g = {.part = PART, .low = -32, .high = 31, .scale_low = -128, .nearer = -1, .further = 1};
    for (int64_t k = 0; k < n; k += SUPER_VALUES, out += Q6_K_BYTES) {
        signed_block s;
        signed_search(in + k, &g, &s);
        memset(out, 0, Q6_K_BYTES);
        for (int i = 0; i < SUPER_VALUES; i++) {
            int half = i / 128, run = i / 32 % 4, v = s.q[i] + 32;
            out[half * 64 + run % 2 * 32 + i % 32] |= (uint8_t)((v & 15) << run / 2 * 4);
            out[128 + half * 32 + i % 32] |= (uint8_t)(v >> 4 << run * 2);
        }
        for (int p = 0; p < PARTS; p++)
            out[192 + p] = (uint8_t)s.scale[p];
        store_u16(out + 208, s.d);
    }
}
