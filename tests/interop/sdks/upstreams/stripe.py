"""Stripe's API: customers made by forms with idempotency keys, pages by `starting_after`, a PDF's bytes, card and limit errors."""

from .base import Answer, Api


def error(status, kind, message, **more):
    return Answer(status, {"error": {"type": kind, "message": message, **more}}, Request_Id="req_1")


class Stripe(Api):
    def refuse(self, request):
        return error(401, "invalid_request_error", "Invalid API Key provided")

    def answer(self, request):
        made = self.store.setdefault(request.user, {})
        if request.path == "/v1/customers" and request.method == "POST":
            key = request.headers["Idempotency-Key"]
            again = key in made
            if not again:
                made[key] = {"id": f"cus_{len(made)}", "object": "customer", "name": request.form()["name"], "description": request.user}
            return Answer(200, made[key], Idempotency_Key=key, Request_Id="req_1", **({"Idempotent-Replayed": "true"} if again else {}))
        if request.path == "/v1/customers":
            all = list(made.values())
            start = next((n + 1 for n, one in enumerate(all) if one["id"] == request.query.get("starting_after")), 0)
            end = start + int(request.query.get("limit", 10))
            return Answer(200, {"object": "list", "url": "/v1/customers", "has_more": end < len(all), "data": all[start:end]}, Request_Id="req_1")
        if request.path == "/v1/charges":
            return error(402, "card_error", "Your card was declined.", code="card_declined", decline_code="generic_decline", param="")
        if request.path == "/v1/balance":
            return error(429, "invalid_request_error", "Too many requests", code="rate_limit")
        return error(404, "invalid_request_error", f"No such object: {request.path}", code="resource_missing", param="id")
