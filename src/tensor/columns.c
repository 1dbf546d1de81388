/* columns.c - columns side by side. */
#include "tensor/columns.h"

#include <string.h>

#include "tensor/panel.h"

void column_tile_fill(const columns *x, size_t s, int t, column_tile *to) {
    const int    first = column_tile_begin(x->n, t), n = column_tile_begin(x->n, t + 1) - first;
    const size_t most = Q8_STRETCH / BLOCK_INPUTS, at = s * most;
    const size_t left = (size_t)x->cols / BLOCK_INPUTS - at, blocks = left < most ? left : most;
    for (int c = 0; c < n; c++) {
        const columns one = columns_from(x, first + c, 1);
        to->scales[c] = one.scales[s];
        for (size_t b = 0; b < blocks; b++) {
            for (int i = 0; i < BLOCK_INPUTS; i++)
                to->q[b][c][i] = (uint8_t)(one.q[(at + b) * BLOCK_INPUTS + (size_t)i] ^ 0x80);
            to->places[b][c] = (uint16_t)((int)(one.shares[at + b] * Q8_SHARES - 1) * LINE_BYTES);
            to->sums[b / 2][c][b % 2] = one.sums[at + b];
            memcpy(to->half_sums[b][c], one.half_sums + 2 * (at + b), sizeof to->half_sums[b][c]);
        }
    }
}
