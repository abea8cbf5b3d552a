#!/usr/bin/env python3
"""Kills attache at each named step of a rotation in turn, and checks what each may cost (THREATS row 32).

The steps are in src/token/failpoint.rs; a debug build dies at the one that a file names. What a kill there leaves is exact: which connection the next
start tells of, and whether the provider still takes its refresh token. With a reuse leeway (--leeway 10) no step costs the grant; without one
(--leeway 0) one alone does, between the provider's answer and the disk.
"""

import itertools
import os
import sys
import time

sys.dont_write_bytecode = True
from kill_rounds import Rounds, one_call, parse, run  # noqa: E402  (no bytecode left in the tree)

# For each step: whether the next start tells of it, and whether the grant is lost where the provider has no leeway.
STEPS = {
    "intent": (False, False),
    "posting": (True, False),
    "answered": (True, True),
    "written": (False, False),
    "published": (False, False),
    "failed": (True, False),
}
DIES_WITHIN_S = 20
# Past a token's life: no refresh that an earlier call began is under way then.
QUIET_S = 1.3


class Steps(Rounds):
    def __init__(self, rig, arguments):
        super().__init__(rig, arguments)
        self.file = os.path.join(rig.folder, "failpoint")
        self.steps = itertools.cycle(STEPS)

    def round(self, number):
        # Whom an earlier step has cost the grant is connected anew in this round only.
        self.step, self.victim = next(self.steps), self.rng.choice([user for user in self.users if user not in self.dead])
        lost_before = self.lost
        faults = super().round(number)
        is_told, is_lost = STEPS[self.step]
        told = {self.victim} if is_told else set()
        if self.told_last != told:
            faults.append(f"killed at {self.step!r}, the start told of {sorted(self.told_last)}, not of {sorted(told)}")
        lost, expected = self.lost - lost_before, int(is_lost and self.leeway == 0)
        if lost != expected:
            faults.append(f"killed at {self.step!r}, {lost} grants were lost, not {expected}")
        return faults

    def strike(self, number):
        rig = self.rig
        rig.control(token_delay_ms=0)
        time.sleep(QUIET_S)
        if self.step == "failed":
            rig.control(fail_token={"status": 503, "body": "{}", "times": 1})
        with open(f"{self.file}.new", "w", encoding="ascii") as armed:
            armed.write(self.step)
        os.rename(f"{self.file}.new", self.file)
        give_up = time.monotonic() + DIES_WITHIN_S
        faults = []
        while rig.server.child.poll() is None:
            one_call(rig.proxy_port, self.victim)
            self.calls += 1
            if time.monotonic() > give_up:
                faults.append(f"it did not die at {self.step!r} within {DIES_WITHIN_S} s")
                os.unlink(self.file)
                rig.server.kill()
        rig.control(fail_token=None)
        return faults, time.monotonic()


if __name__ == "__main__":
    run(parse(__doc__, 12), Steps, env={"ATTACHE_FAILPOINT": "{folder}/failpoint"})
