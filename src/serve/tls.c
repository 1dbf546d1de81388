#include "serve/tls.h"

#include <event2/bufferevent.h>
#include <event2/bufferevent_ssl.h>
#include <event2/event.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define HANDSHAKE_US 30000000

/* The SSL_CTX is counted by OpenSSL; `tls` is its name here. */
static SSL_CTX *context_of(tls *t) {
    return (SSL_CTX *)t;
}

static bool fail(const char *what, const char *path, err *e) {
    unsigned long code = ERR_peek_last_error();
    const char   *why = code ? ERR_reason_error_string(code) : NULL;
    err_set(e, ERR_INVALID, "%s: %s (%s). Is it a PEM file that this user may read?", path, what,
            why ? why : "no reason given");
    ERR_clear_error();
    return false;
}

/* HTTP/1.1 is what evhttp speaks; a client that offers only others is told so by the handshake. */
static int choose_protocol(SSL *ssl, const unsigned char **out, unsigned char *n, const unsigned char *in,
                           unsigned in_n, void *arg) {
    static const unsigned char ours[] = "\x08http/1.1";
    (void)ssl;
    (void)arg;
    unsigned char *chosen = NULL;
    int            found = SSL_select_next_proto(&chosen, n, ours, sizeof ours - 1, in, in_n);
    *out = chosen;
    return found == OPENSSL_NPN_NEGOTIATED ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_ALERT_FATAL;
}

/* An encrypted key: OpenSSL would ask the terminal for its password, and wait. */
static int no_password(char *out, int size, int writing, void *arg) {
    (void)out;
    (void)size;
    (void)writing;
    (void)arg;
    return -1;
}

/* ---- how long a handshake may take ---- */

/* evhttp's time limit runs from one byte to the next, and slow.c sees what has been decrypted only. The watch lives as long
 * as its SSL, which the bufferevent owns. */
typedef struct watch {
    struct event       *timer;
    struct bufferevent *b;
} watch;

static pthread_once_t once = PTHREAD_ONCE_INIT;
static int            place; /* of the watch in an SSL, and of the time in an SSL_CTX */
static int            limit;

static void free_watch(void *parent, void *ptr, CRYPTO_EX_DATA *data, int index, long arg, void *more) {
    (void)parent;
    (void)data;
    (void)index;
    (void)arg;
    (void)more;
    watch *w = ptr;
    if (w) {
        event_free(w->timer);
        free(w);
    }
}

static void make_places(void) {
    place = SSL_get_ex_new_index(0, NULL, NULL, NULL, free_watch);
    limit = SSL_CTX_get_ex_new_index(0, NULL, NULL, NULL, NULL);
}

static void on_late(evutil_socket_t fd, short what, void *arg) {
    (void)fd;
    (void)what;
    watch *w = arg;
    if (!SSL_is_init_finished(bufferevent_openssl_get_ssl(w->b))) {
        bufferevent_trigger_event(w->b, BEV_EVENT_TIMEOUT | BEV_EVENT_READING, 0); /* which frees all of it */
    }
}

static bool watch_handshake(SSL *ssl, struct bufferevent *b, struct event_base *base) {
    int64_t        us = (int64_t)(intptr_t)SSL_CTX_get_ex_data(SSL_get_SSL_CTX(ssl), limit);
    struct timeval tv = {.tv_sec = us / 1000000, .tv_usec = us % 1000000};
    watch         *w = calloc(1, sizeof *w);
    if (!w || !(w->timer = evtimer_new(base, on_late, w)) || evtimer_add(w->timer, &tv) != 0 ||
        SSL_set_ex_data(ssl, place, w) != 1) {
        if (w && w->timer) {
            event_free(w->timer);
        }
        free(w);
        return false;
    }
    w->b = b;
    return true;
}

/* ---- opening ---- */

static bool set_up(SSL_CTX *c, const tls_options *o, err *e) {
    if (SSL_CTX_use_certificate_chain_file(c, o->certificate) != 1) {
        return fail("the certificate cannot be read", o->certificate, e);
    }
    if (SSL_CTX_use_PrivateKey_file(c, o->key, SSL_FILETYPE_PEM) != 1) {
        return fail("the private key cannot be read, or is another certificate's", o->key, e);
    }
    if (SSL_CTX_check_private_key(c) != 1) {
        return fail("the private key is not the certificate's", o->key, e);
    }
    if (o->client_ca) {
        STACK_OF(X509_NAME) *names = SSL_load_client_CA_file(o->client_ca);
        if (!names || SSL_CTX_load_verify_locations(c, o->client_ca, NULL) != 1) {
            sk_X509_NAME_pop_free(names, X509_NAME_free);
            return fail("the clients' certificate authority cannot be read", o->client_ca, e);
        }
        SSL_CTX_set_client_CA_list(c, names);
        SSL_CTX_set_verify(c, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    }
    return true;
}

tls *tls_open(const tls_options *o, err *e) {
    static const unsigned char session[] = "pare";
    if (!o->certificate || !o->key) {
        err_set(e, ERR_INVALID, "tls needs both certificate and key (PEM files).");
        return NULL;
    }
    SSL_CTX *c = SSL_CTX_new(TLS_server_method());
    if (!c) {
        err_set(e, ERR_MEMORY, "TLS cannot be set up: out of memory.");
        return NULL;
    }
    pthread_once(&once, make_places);
    int64_t handshake_us = o->handshake_us > 0 ? o->handshake_us : HANDSHAKE_US;
    SSL_CTX_set_ex_data(c, limit, (void *)(intptr_t)handshake_us);
    SSL_CTX_set_default_passwd_cb(c, no_password);
    SSL_CTX_set_min_proto_version(c, TLS1_2_VERSION);
    SSL_CTX_set_options(c, SSL_OP_NO_RENEGOTIATION | SSL_OP_CIPHER_SERVER_PREFERENCE);
    SSL_CTX_set_mode(c, SSL_MODE_RELEASE_BUFFERS); /* an idle connection keeps no record buffers */
    SSL_CTX_set_session_id_context(c, session, sizeof session - 1);
    SSL_CTX_set_alpn_select_cb(c, choose_protocol, NULL);
    if (!set_up(c, o, e)) {
        SSL_CTX_free(c);
        return NULL;
    }
    return (tls *)c;
}

void tls_release(tls *t) {
    SSL_CTX_free(context_of(t));
}

struct bufferevent *tls_accept(tls *t, struct event_base *base) {
    SSL *ssl = SSL_new(context_of(t));
    if (!ssl) {
        return NULL;
    }
    struct bufferevent *b =
        bufferevent_openssl_socket_new(base, -1, ssl, BUFFEREVENT_SSL_ACCEPTING, BEV_OPT_CLOSE_ON_FREE);
    if (!b) {
        SSL_free(ssl);
        return NULL;
    }
    bufferevent_openssl_set_allow_dirty_shutdown(b, 1); /* clients that just close have read their answer */
    if (!watch_handshake(ssl, b, base)) {
        bufferevent_free(b);
        return NULL;
    }
    return b;
}

bool tls_spoken(struct bufferevent *b) {
    return bufferevent_openssl_get_ssl(b) != NULL;
}
