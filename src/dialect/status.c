#include "dialect/dialect.h"

int error_status(err_code code) {
    switch (code) {
    case ERR_INVALID:
    case ERR_UNSUPPORTED:
    case ERR_CONTEXT:
        return 400;
    case ERR_DENIED:
        return 401;
    case ERR_NOT_FOUND:
        return 404;
    case ERR_LIMIT:
        return 413;
    case ERR_BUSY:
        return 429;
    case ERR_UPSTREAM:
        return 502;
    case ERR_TIMEOUT:
        return 504;
    case ERR_CANCELLED:
        return 499; /* nobody is left to read it; the ledger shows it */
    default:
        return 500;
    }
}
