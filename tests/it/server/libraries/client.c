/* A client on mbedTLS, for the tests: connects to localhost some times, taking
 * up the session of the time before, says hello and prints what comes.
 *
 * client PORT ANCHOR TIMES [version=N] [suite=NAME] [identity=STEM]
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <mbedtls/ctr_drbg.h>
#include <mbedtls/entropy.h>
#include <mbedtls/error.h>
#include <mbedtls/net_sockets.h>
#include <mbedtls/ssl.h>

static int fail(const char *step, int code)
{
  char text[200];
  mbedtls_strerror(code, text, sizeof text);
  fprintf(stderr, "%s: %s\n", step, text);
  exit(1);
}

#define TRY(step, call) do { int code_ = (call); if (code_ < 0) fail(step, code_); } while (0)

int main(int argc, char **argv)
{
  mbedtls_entropy_context entropy;
  mbedtls_ctr_drbg_context random;
  mbedtls_ssl_config config;
  mbedtls_x509_crt anchor, own;
  mbedtls_pk_context key;
  mbedtls_ssl_session session;
  int suites[2] = { 0, 0 };
  int i, times, known = 0;

  if (argc < 4) return 2;
  mbedtls_entropy_init(&entropy);
  mbedtls_ctr_drbg_init(&random);
  mbedtls_ssl_config_init(&config);
  mbedtls_x509_crt_init(&anchor);
  mbedtls_x509_crt_init(&own);
  mbedtls_pk_init(&key);
  mbedtls_ssl_session_init(&session);
  TRY("seed", mbedtls_ctr_drbg_seed(&random, mbedtls_entropy_func, &entropy, NULL, 0));
  TRY("defaults", mbedtls_ssl_config_defaults(&config, MBEDTLS_SSL_IS_CLIENT,
      MBEDTLS_SSL_TRANSPORT_STREAM, MBEDTLS_SSL_PRESET_DEFAULT));
  mbedtls_ssl_conf_rng(&config, mbedtls_ctr_drbg_random, &random);
  mbedtls_ssl_conf_read_timeout(&config, 30000);
  TRY("anchor", mbedtls_x509_crt_parse_file(&anchor, argv[2]));
  mbedtls_ssl_conf_ca_chain(&config, &anchor, NULL);
  for (i = 4; i < argc; i++) {
    char path[1000];
    if (!strncmp(argv[i], "version=", 8)) {
      int minor = atoi(argv[i] + 8);
      mbedtls_ssl_conf_min_version(&config, MBEDTLS_SSL_MAJOR_VERSION_3, minor);
      mbedtls_ssl_conf_max_version(&config, MBEDTLS_SSL_MAJOR_VERSION_3, minor);
    } else if (!strncmp(argv[i], "suite=", 6)) {
      suites[0] = mbedtls_ssl_get_ciphersuite_id(argv[i] + 6);
      if (!suites[0]) return 2;
      mbedtls_ssl_conf_ciphersuites(&config, suites);
    } else if (!strncmp(argv[i], "identity=", 9)) {
      snprintf(path, sizeof path, "%s.pem", argv[i] + 9);
      TRY("certificate", mbedtls_x509_crt_parse_file(&own, path));
      snprintf(path, sizeof path, "%s.key", argv[i] + 9);
      TRY("key", mbedtls_pk_parse_keyfile(&key, path, NULL));
      TRY("identity", mbedtls_ssl_conf_own_cert(&config, &own, &key));
    } else return 2;
  }
  for (times = atoi(argv[3]); times > 0; times--) {
    mbedtls_net_context net;
    mbedtls_ssl_context ssl;
    unsigned char bytes[1000];
    int got;
    mbedtls_net_init(&net);
    mbedtls_ssl_init(&ssl);
    TRY("setup", mbedtls_ssl_setup(&ssl, &config));
    TRY("name", mbedtls_ssl_set_hostname(&ssl, "localhost"));
    TRY("connect", mbedtls_net_connect(&net, "127.0.0.1", argv[1], MBEDTLS_NET_PROTO_TCP));
    mbedtls_ssl_set_bio(&ssl, &net, mbedtls_net_send, NULL, mbedtls_net_recv_timeout);
    if (known) TRY("set session", mbedtls_ssl_set_session(&ssl, &session));
    TRY("handshake", mbedtls_ssl_handshake(&ssl));
    mbedtls_ssl_session_free(&session);
    mbedtls_ssl_session_init(&session);
    TRY("get session", mbedtls_ssl_get_session(&ssl, &session));
    known = 1;
    TRY("write", mbedtls_ssl_write(&ssl, (const unsigned char *) "hello\n", 6));
    TRY("half-close", mbedtls_ssl_close_notify(&ssl));
    while ((got = mbedtls_ssl_read(&ssl, bytes, sizeof bytes)) > 0) fwrite(bytes, 1, got, stdout);
    if (got != MBEDTLS_ERR_SSL_PEER_CLOSE_NOTIFY) fail("end", got ? got : MBEDTLS_ERR_SSL_CONN_EOF);
    mbedtls_ssl_free(&ssl);
    mbedtls_net_free(&net);
  }
  return 0;
}
