/* speech_parts.h - what the files of the speech share; not for other rooms.
 *
 * speech.c tells text, reasoning and calls apart; speech_call.c and speech_params.c read one call; speech_style.c knows
 * the families; speech_json.c follows JSON byte by byte.                                                                            */
#ifndef PARE_DIALECT_SPEECH_PARTS_H
#define PARE_DIALECT_SPEECH_PARTS_H

#include <string.h>

#include "base/str.h"
#include "dialect/speech.h"

/* ---- speech_json.c ---- */

#define WALK_DEPTH 128

typedef enum walk_step {
    WALK_MORE, /* the value goes on */
    WALK_DONE, /* it ended with this byte */
    WALK_OVER, /* it ended before this byte: a number */
    WALK_BAD   /* no JSON */
} walk_step;

typedef struct json_walk { /* zeroed: before a value */
    uint8_t     state;
    bool        key;                      /* the string we are in is a member's name */
    uint8_t     hex;                      /* digits of \uXXXX still to come */
    int         depth;                    /* open arrays and objects */
    const char *word;                     /* what must still come of true, false or null */
    uint64_t    objects[WALK_DEPTH / 64]; /* bit by depth: an object, not an array */
} json_walk;

/* Control characters inside strings pass, since models write line ends there; the caller escapes them. */
walk_step walk_byte(json_walk *w, char c);
bool      walk_in_string(const json_walk *w);

/* ---- speech_style.c ---- */

typedef enum speech_shape {
    SHAPE_JSON,   /* one object with a name and arguments, or an array of such */
    SHAPE_NAMED,  /* a name, then its arguments as JSON */
    SHAPE_EITHER, /* JSON where it begins with a bracket, else named */
    SHAPE_PARAMS  /* <function=name><parameter=key>value</parameter></function>, and its like */
} speech_shape;

typedef enum speech_head {                /* what stands before the arguments of SHAPE_NAMED */
                           HEAD_PLAIN,    /* name and a closing bracket */
                           HEAD_MISTRAL,  /* name[CALL_ID]id[ARGS] */
                           HEAD_KIMI,     /* functions.name:0<|tool_call_argument_begin|>, which is also the id */
                           HEAD_DEEPSEEK, /* function<sep>name, a line end and three backticks; or name<sep> */
} speech_head;

struct speech_style {
    const char  *name;
    const char  *hints[3]; /* the template has them all */
    const char  *open[2];
    const char  *close;
    const char  *around[2]; /* begin and end a row of calls */
    const char  *inner[2];  /* other marks that may be control tokens */
    speech_shape shape;
    speech_head  head;
    bool         bare;      /* a call may begin without a mark, as the first thing that is said */
    bool         short_ids; /* templates take ids of nine letters and digits only */
};

/* ---- the speech ---- */

typedef enum speech_state {
    IN_TEXT,
    IN_THOUGHT,
    IN_OPENING, /* behind a mark that opens a call: what shape does it have? */
    IN_ITEMS,   /* of an array of calls: before one, or before its end */
    IN_CALL,
    IN_CLOSING, /* behind a call: its closing mark may come */
    IN_LIST     /* behind a call in an array */
} speech_state;

typedef enum call_step { CALL_MORE, CALL_DONE, CALL_BAD } call_step;

typedef struct speech_call { /* the call that is being read; see speech_call.c */
    int       state;
    int       member; /* of the object: which one */
    bool      sure;   /* it has been told */
    bool      named, had_arguments;
    bool      text_value; /* of a parameter: its value is text, else JSON if it reads as JSON */
    bool      lines;      /* of a parameter: its value has lines of its own */
    bool      begun;      /* of a parameter: something of its value has come */
    int       parameters;
    char      held; /* a line end at the end of a parameter's value, until we know whether it is the last byte */
    json_walk walk;
    str       raw;   /* what it looks like, until it is sure */
    str       key;   /* of a member, a tag or a parameter */
    str       value; /* a string literal, a parameter, or arguments that came before the name */
    str       name, id;
} speech_call;

typedef struct speech_mark {
    const char *text;
    size_t      len;
    enum { MARK_THINK, MARK_THOUGHT, MARK_CALL, MARK_CLOSE, MARK_AROUND } what;
} speech_mark;

struct speech {
    speech_format  f;
    speech_options o;
    speech_state   state;
    speech_mark    marks[SPEECH_MAX_MARKS]; /* of IN_TEXT; then those of IN_THOUGHT and IN_CLOSING */
    int            n_marks;
    speech_mark    thought, close;
    bool           said;       /* text that is not blank */
    bool           after_call; /* nothing but blanks since the last call */
    bool           skip;       /* blanks are dropped */
    bool           in_array;   /* the call stands in an array */
    bool           unmarked;   /* the call began without a mark */
    bool           failed;
    char           held[64]; /* what may become a mark */
    size_t         n_held;
    str            blank; /* blanks that wait for what follows them */
    str            out;   /* gathered for the next delta */
    speech_kind    out_kind;
    int            n_calls;
    speech_call    call;
};

/* speech.c, for the readers */
void speech_out(speech *s, speech_kind kind, const char *bytes, size_t n);

/* What calls are read with. */
#define CALL_MAX_NAME 256 /* bytes of a name, an id, a tag */

/* speech_call.state, by shape. */
enum {
    J_OPEN,
    J_FIRST,
    J_KEY,
    J_IN_KEY,
    J_COLON,
    J_VALUE,
    J_NEXT, /* SHAPE_JSON */
    N_HEAD,
    N_ARGUMENTS, /* SHAPE_NAMED */
    P_BEFORE,
    P_NAME,
    P_TAG,
    P_KEY,
    P_VALUE
}; /* SHAPE_PARAMS */

static inline bool is_blank(char c) {
    return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

static inline const char *bytes_of(const str *s) {
    return s->data ? s->data : "";
}

static inline bool is(const str *s, const char *text) {
    return strcmp(bytes_of(s), text) == 0;
}

static inline bool starts(const char *text, const char *with) {
    return strncmp(text, with, strlen(with)) == 0;
}

/* speech_call.c */
void         call_arguments(speech *s, const char *bytes, size_t n);
void         call_escape(speech *s, char c);                 /* of a JSON string in the arguments */
bool         call_name(str *to, const char *from, size_t n); /* trimmed; false: no name */
bool         call_tell(speech *s);                           /* it is sure; false: it is no call after all */
const cJSON *call_tool(const speech *s, const char *name);

/* speech_params.c */
call_step call_params(speech *s, char c);

/* speech_call.c, for the speech */
void      call_begin(speech *s, speech_shape shape);
call_step call_byte(speech *s, char c);
void      call_free(speech_call *c);

#endif
