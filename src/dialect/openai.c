/* openai.c - the OpenAI API (chat completions, completions, embeddings; and rerank) as a dialect; the work is in
 * openai_*.c. */
#include "dialect/openai.h"

const dialect dialect_openai = {
    .name = "openai",
    .read_request = openai_read_request,
    .read_local = openai_read_local,
    .canonical = openai_canonical,
    .write_answer = openai_write_answer,
    .write_values = openai_write_values,
    .write_chunk = openai_write_chunk,
    .write_usage = openai_write_usage,
    .write_error = openai_write_error,
    .write_request = openai_write_request,
    .read_answer = openai_read_answer,
    .read_chunk = openai_read_chunk,
};
