"""Parameters without a counterpart in fastscreen, and why none is needed."""

from __future__ import annotations

from fastscreen.config.postfix_names import TLS_PREFIXES

_TLS = {
    "CAfile": "client certificates are not requested",
    "CApath": "client certificates are not requested",
    "always_issue_session_ids": "sessions are resumed with tickets",
    "ask_ccert": "client certificates are not requested",
    "ccert_verifydepth": "client certificates are not requested",
    "dh1024_param_file": "OpenSSL's default groups are used",
    "dh512_param_file": "OpenSSL's default groups are used",
    "eecdh_grade": "OpenSSL's default curves are used",
    "enable_rpk": "raw public keys are not offered",
    "fingerprint_digest": "client certificates are not requested",
    "loglevel_maps": "tls.log_level applies to all clients",
    "req_ccert": "client certificates are not requested",
    "trace_size_limit": "TLS packets are not logged",
}

NO_COUNTERPART = {
    "postscreen_watchdog_timeout": "the supervisor restarts workers that die or hang",
    "dnsblog_service_name": "fastscreen queries the lists directly",
    "dnsblog_reply_delay": "fastscreen queries the lists directly",
    "dns_ncache_ttl_fix_enable": "fastscreen always uses the TTL of negative answers",
    "tlsproxy_service_name": "fastscreen has its own TLS processes",
    "tlsproxy_watchdog_timeout": "fastscreen has its own TLS processes",
    "max_idle": "fastscreen does not exit when it is idle",
    "ipc_timeout": "fastscreen does not wait for other processes of Postfix",
    "parent_domain_matches_subdomains": "it does not affect addresses",
    "syslog_facility": "fastscreen always uses the facility mail",
    "tls_config_file": "OpenSSL's default configuration is used",
    "tls_config_name": "OpenSSL's default configuration is used",
    "tls_disable_workarounds": "OpenSSL's default is used",
    "tls_eecdh_auto_curves": "OpenSSL's default curves are used",
    "tls_eecdh_strong_curve": "OpenSSL's default curves are used",
    "tls_eecdh_ultra_curve": "OpenSSL's default curves are used",
    "tls_preempt_cipherlist": "OpenSSL's default is used",
    "tls_server_sni_maps": "fastscreen uses the same certificates for all server names",
    "tls_ssl_options": "compression and renegotiation are disabled; otherwise OpenSSL's defaults are used",
    **{f"{prefix}{name}": why for name, why in _TLS.items() for prefix in TLS_PREFIXES},
}
