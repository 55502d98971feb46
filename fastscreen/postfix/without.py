"""Parameters that have no counterpart in fastscreen, and why none is needed."""

from __future__ import annotations

from fastscreen.config.postfix_names import TLS_PREFIXES

_OF_TLS = {
    "CAfile": "client certificates are not asked for",
    "CApath": "client certificates are not asked for",
    "always_issue_session_ids": "sessions are resumed with tickets",
    "ask_ccert": "client certificates are not asked for",
    "ccert_verifydepth": "client certificates are not asked for",
    "dh1024_param_file": "OpenSSL has groups of its own",
    "dh512_param_file": "OpenSSL has groups of its own",
    "eecdh_grade": "OpenSSL has curves of its own",
    "enable_rpk": "raw public keys are not offered",
    "fingerprint_digest": "client certificates are not asked for",
    "loglevel_maps": "tls.log_level is one for all",
    "req_ccert": "client certificates are not asked for",
    "trace_size_limit": "what is sent in TLS is not logged",
}

WITHOUT = {
    "postscreen_watchdog_timeout": "a worker that dies is started again; there is no watchdog",
    "dnsblog_service_name": "fastscreen asks the lists itself",
    "dnsblog_reply_delay": "fastscreen asks the lists itself",
    "dns_ncache_ttl_fix_enable": "fastscreen reads the TTL of negative answers itself",
    "tlsproxy_service_name": "fastscreen has TLS processes of its own",
    "tlsproxy_watchdog_timeout": "fastscreen has TLS processes of its own",
    "max_idle": "fastscreen does not end when it is idle",
    "ipc_timeout": "fastscreen waits for no other process of Postfix",
    "parent_domain_matches_subdomains": "it has no effect on addresses",
    "syslog_facility": "fastscreen's lines have the facility mail",
    "tls_config_file": "OpenSSL's own configuration is read as it is",
    "tls_config_name": "OpenSSL's own configuration is read as it is",
    "tls_disable_workarounds": "OpenSSL's own choice",
    "tls_eecdh_auto_curves": "OpenSSL has curves of its own",
    "tls_eecdh_strong_curve": "OpenSSL has curves of its own",
    "tls_eecdh_ultra_curve": "OpenSSL has curves of its own",
    "tls_preempt_cipherlist": "OpenSSL's own choice",
    "tls_server_sni_maps": "one certificate for all names of this server",
    "tls_ssl_options": "compression and renegotiation are off; the rest is OpenSSL's own choice",
    **{f"{prefix}{name}": why for name, why in _OF_TLS.items() for prefix in TLS_PREFIXES},
}
