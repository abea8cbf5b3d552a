"""stripe-python, which adds no headers: the end user's name stands where it wants its key."""

import stripe
from common import ATTACHE, GONE, for_each_user, raises


# docs: begin
def stripe_of(end_user):
    return stripe.StripeClient(end_user, base_addresses={"api": f"{ATTACHE}/stripe"})
# docs: end


def test(user, login):
    api = stripe_of(user).v1
    for n in range(5):
        made = api.customers.create({"name": f"Customer & son {n}"}, {"idempotency_key": f"key-{n}"})
        assert (made.name, made.description) == (f"Customer & son {n}", login), made
    again = api.customers.create({"name": "Customer & son 2"}, {"idempotency_key": "key-2"})
    assert again.id == "cus_2" and again.last_response.headers["Idempotent-Replayed"] == "true"

    names = [one.name for one in api.customers.list({"limit": 2}).auto_paging_iter()]
    assert names == [f"Customer & son {n}" for n in range(5)], names

    error = raises(stripe.CardError, lambda: api.charges.create({"amount": 100, "currency": "eur", "source": "tok_chargeDeclined"}))
    assert (error.http_status, error.code, error.request_id) == (402, "card_declined", "req_1"), error
    error = raises(stripe.RateLimitError, lambda: api.balance.retrieve())
    assert error.http_status == 429
    error = raises(stripe.InvalidRequestError, lambda: api.customers.retrieve("cus_nothing"))
    assert (error.http_status, error.code) == (404, "resource_missing")
    raises(stripe.AuthenticationError, lambda: stripe_of(GONE).v1.balance.retrieve())


for_each_user(test)
