/* pack.h - from rows of GGUF blocks to panels of 16 rows (panel.h), and one row back. */
#ifndef PARE_TENSOR_PACK_H
#define PARE_TENSOR_PACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tensor/block.h"

/* Bytes of a panel with `cols` inputs (a multiple of the block); false for types that have no panels. */
bool pack_panel_bytes(block_type type, int cols, size_t *bytes);

/* Puts `rows` (1..16) rows, `row_bytes` apart, into a panel; the rows that are not there become zero. */
void pack_panel(block_type type, const uint8_t *rows_at, size_t row_bytes, int rows, int cols, uint8_t *panel);

/* Row r of a panel as floats: the values of the blocks it was made of, bit for bit. */
void unpack_row(block_type type, const uint8_t *panel, int r, int cols, float *out);

#endif
