"""Metadata of the authorization server (RFC 8414)."""

from typing import Any

from authlib.oauth2.rfc8628 import DEVICE_CODE_GRANT_TYPE
from flask import url_for

from bus import scopes
from webapp.context import addresses, options


def build() -> dict[str, Any]:
    """Build the metadata. Clients take a document at the address of their id for their registration (CIMD)."""
    endpoints = addresses()
    issuer = endpoints.web_url
    registration = {"registration_endpoint": f"{issuer}{url_for('oauth_endpoints.register')}"}
    return {
        "issuer": issuer,
        "authorization_endpoint": f"{issuer}{url_for('authorize.show')}",
        "token_endpoint": f"{issuer}{url_for('oauth_endpoints.token')}",
        "revocation_endpoint": f"{issuer}{url_for('oauth_endpoints.revoke')}",
        "device_authorization_endpoint": f"{issuer}{url_for('oauth_endpoints.authorize_device')}",
        **(registration if options().oauth_registration else {}),
        "response_types_supported": ["code"],
        "scopes_supported": scopes.to_oauth_list(),
        "response_modes_supported": ["query"],
        "grant_types_supported": ["authorization_code", "refresh_token", DEVICE_CODE_GRANT_TYPE],
        "token_endpoint_auth_methods_supported": ["none"],
        "revocation_endpoint_auth_methods_supported": ["none"],
        "code_challenge_methods_supported": ["S256"],
        "client_id_metadata_document_supported": True,
        "authorization_response_iss_parameter_supported": True,
        "protected_resources": [endpoints.mcp_url],
    }
