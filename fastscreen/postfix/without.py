"""Parameters that have no counterpart in fastscreen, and why none is needed."""

from __future__ import annotations

from fastscreen.postfix.defaults import TLS

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

_TLS_PREFIXES = ("postscreen_tls_", "tlsproxy_tls_", "smtpd_tls_")

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
    **{f"{prefix}{name}": why for name, why in _OF_TLS.items() for prefix in _TLS_PREFIXES},
}

# Used up by the import on the way to a key that is not named after them.
USED = {
    "compatibility_level": "log.respectful, engine.smtputf8",
    "data_directory": "`fastscreen cache import`",
    "default_cache_db_type": "`fastscreen cache import`",
    "inet_interfaces": "listen.addresses",
    "inet_protocols": "listen.addresses",
    "mail_name": "banner",
    "mydomain": "hostname, banner",
    "queue_directory": "handoff.to",
    "postscreen_enforce_tls": "tls.level",
    "postscreen_use_tls": "tls.level",
    "smtpd_enforce_tls": "tls.level",
    "smtpd_use_tls": "tls.level",
    "tlsproxy_enforce_tls": "tls.level",
    "tlsproxy_use_tls": "tls.level",
    **{
        f"{prefix}{name}": key
        for prefix in _TLS_PREFIXES
        for name, key in {
            **{name: "tls.certificates" for name in TLS if name.endswith(("cert_file", "key_file", "chain_files"))},
            **{name: "tls.ciphers" for name in TLS if name.endswith(("ciphers", "exclude_ciphers"))},
            **{name: "tls.protocols" for name in TLS if name.endswith("protocols")},
            "loglevel": "tls.log_level",
            "security_level": "tls.level",
        }.items()
    },
}
