"""The HTTP API as an OpenAPI 3.1 document."""

from typing import Any

from services.collector.clock import TEXT_MAX_CHARS
from services.collector.commerce import ITEM_MAX_CHARS
from services.collector.door import BATCH_MAX_COUNT
from services.collector.identity import ID_MAX_CHARS
from services.collector.segment import EVENT_ID_MAX_CHARS

Schema = dict[str, Any]

_ID: Schema = {"type": ["string", "integer", "null"], "maxLength": ID_MAX_CHARS}
_TIME: Schema = {"type": ["string", "integer", "null"], "format": "date-time", "maxLength": TEXT_MAX_CHARS}
_AMOUNT: Schema = {"type": ["number", "string", "null"], "description": "decimal, e.g. 19.99"}
_ITEM: Schema = {"type": ["string", "integer", "null"], "maxLength": ITEM_MAX_CHARS}
_PREFERENCES: Schema = {"type": "object", "additionalProperties": {"type": "boolean"}}

_PRODUCT: Schema = {
    "type": "object",
    "properties": {"product_id": _ITEM, "sku": _ITEM, "price": _AMOUNT, "quantity": _AMOUNT},
}

_MESSAGE: Schema = {
    "type": "object",
    "properties": {
        "messageId": {"type": ["string", "null"], "maxLength": EVENT_ID_MAX_CHARS},
        "userId": _ID,
        "anonymousId": _ID,
        "timestamp": _TIME,
        "originalTimestamp": _TIME,
        "sentAt": _TIME,
        "context": {
            "type": ["object", "null"],
            "description": "Only the consent in it is read, and nothing of it is kept.",
            "properties": {"consent": {"type": "object", "properties": {"categoryPreferences": _PREFERENCES}}},
        },
        "writeKey": {"type": "string", "description": "For callers that cannot set the header authorization."},
    },
    "anyOf": [{"required": ["userId"]}, {"required": ["anonymousId"]}],
}

_PROPERTIES: Schema = {
    "type": ["object", "null"],
    "properties": {
        "product_id": _ITEM,
        "sku": _ITEM,
        "price": _AMOUNT,
        "quantity": _AMOUNT,
        "value": _AMOUNT,
        "total": _AMOUNT,
        "revenue": _AMOUNT,
        "currency": {"type": "string", "pattern": "^[A-Za-z]{3}$"},
        "products": {"type": "array", "items": _PRODUCT},
    },
}

_TYPES: dict[str, Schema] = {
    "track": {
        "properties": {"event": {"type": "string", "minLength": 1}, "properties": _PROPERTIES},
        "required": ["event"],
    },
    "identify": {"properties": {"traits": {"type": ["object", "null"], "description": "Not kept."}}},
    "alias": {"properties": {"previousId": _ID}, "required": ["previousId", "userId"]},
    "page": {"properties": {"name": {"type": ["string", "null"]}, "properties": _PROPERTIES}},
    "screen": {"properties": {"name": {"type": ["string", "null"]}, "properties": _PROPERTIES}},
    "group": {"properties": {"groupId": _ID, "traits": {"type": ["object", "null"], "description": "Not kept."}}},
}
"""What each type of message has beside what all have."""

_ERROR: Schema = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message", "status", "details"],
            "properties": {
                "code": {"type": "integer"},
                "message": {"type": "string"},
                "status": {"type": "string"},
                "details": {"type": "array", "items": {"type": "object"}},
            },
        }
    },
}

_ACCEPTED: Schema = {
    "type": "object",
    "required": ["success", "accepted_count", "refused", "token"],
    "properties": {
        "success": {"const": True},
        "accepted_count": {"type": "integer", "minimum": 0, "maximum": BATCH_MAX_COUNT},
        "refused": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["index", "event_id", "reason", "field", "problem"],
                "properties": {
                    "index": {"type": "integer", "minimum": 0},
                    "event_id": {"type": "string"},
                    "reason": {"enum": ["INVALID_EVENT", "EVENT_TOO_LARGE", "CONSENT_WITHHELD"]},
                    "field": {"type": "string"},
                    "problem": {"type": "string"},
                },
            },
        },
        "token": {
            "type": "string",
            "description": "The place in the event log; a request may carry it as `read_after`.",
        },
    },
}

_RETRY = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer", "minimum": 1}}}


def _json(schema: str) -> Schema:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}


def _error(description: str, headers: Schema | None = None) -> Schema:
    return {"description": description, "content": _json("Error"), "headers": headers or {}}


def _operation(summary: str, name: str, schema: str) -> Schema:
    answers = {
        "200": {"description": "Durable in the event log.", "content": _json("Accepted")},
        "400": _error("The body, or the one message in it, cannot be used."),
        "401": _error("The write key is missing or not known here."),
        "408": _error("The body did not arrive in time."),
        "413": _error("The body or the message is too large."),
        "429": _error("Too much at once.", _RETRY),
        "503": _error("The event log does not answer.", _RETRY),
    }
    request = {"required": True, "content": _json(schema)}
    return {"post": {"summary": summary, "operationId": name, "requestBody": request, "responses": answers}}


def _plain(summary: str, name: str, media: str, *codes: str) -> Schema:
    content = {media: {"schema": {} if media == "application/json" else {"type": "string"}}}
    answers = {code: {"description": summary, "content": content} for code in codes}
    return {"get": {"summary": summary, "operationId": name, "responses": answers, "security": []}}


DOCUMENT: Schema = {
    "openapi": "3.1.0",
    "info": {
        "title": "Segue collector",
        "version": "1",
        "description": "Segment's tracking API. A message is accepted or refused by itself; bodies may be gzip.",
    },
    "security": [{"writeKey": []}],
    "paths": {
        **{f"/v1/{kind}": _operation(f"One {kind} message.", kind, kind.capitalize()) for kind in _TYPES},
        "/v1/batch": _operation("Messages of any type.", "batch", "Batch"),
        "/v1/import": _operation("As batch, for messages of the past.", "import", "Batch"),
        "/livez": _plain("The process runs.", "live", "text/plain", "200"),
        "/readyz": _plain("Whether callers may come.", "ready", "text/plain", "200", "503"),
        "/metrics": _plain("Prometheus metrics.", "metrics", "text/plain", "200"),
        "/openapi.json": _plain("This document.", "openapi", "application/json", "200"),
    },
    "components": {
        "securitySchemes": {
            "writeKey": {"type": "http", "scheme": "basic", "description": "The write key as user name, no password."}
        },
        "schemas": {
            "Message": _MESSAGE,
            **{
                kind.capitalize(): {"allOf": [{"$ref": "#/components/schemas/Message"}, {"type": "object", **own}]}
                for kind, own in _TYPES.items()
            },
            "Typed": {
                "oneOf": [
                    {
                        "allOf": [
                            {"$ref": f"#/components/schemas/{kind.capitalize()}"},
                            {"type": "object", "properties": {"type": {"const": kind}}, "required": ["type"]},
                        ]
                    }
                    for kind in _TYPES
                ]
            },
            "Batch": {
                "type": "object",
                "required": ["batch"],
                "properties": {
                    "batch": {
                        "type": "array",
                        "items": {"$ref": "#/components/schemas/Typed"},
                        "minItems": 1,
                        "maxItems": BATCH_MAX_COUNT,
                    },
                    "sentAt": _TIME,
                    "writeKey": {"type": "string"},
                },
            },
            "Accepted": _ACCEPTED,
            "Error": _ERROR,
        },
    },
}
"""The document that GET /openapi.json answers with."""
