"""How fast a provider may be called on a key: one pace for all workers, kept in Redis, learnt from refusals.

Before the first refusal, calls are let through as fast as answers come (a first handful, then two for each success, so that
a limit is met by a few calls and not by hundreds). A refusal stops everybody for as long as the provider asks. From then on
calls are spread evenly at an estimated rate: the calls that were accepted in the second of a wave of refusals, a little less.
A single refusal takes 3 % off. What was taken off is won back quickly below the estimate, and ever more boldly above it the
longer nothing is refused. Measured in `make bench`: a limit of 20 calls a second is used to over 90 % with under 3 % refused;
trials that add a fixed step were refused 10 to 20 %.

Nothing is decided here: without Redis each worker goes on at a modest pace of its own.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

from redis.commands.core import Script

from engarde.common import redis as redis_client

KEY = "generation:pace:{}"
MODEST_CALLS, MODEST_SECONDS = 2, 0.2
MICROSECONDS = 1_000_000
# State of a key: rate and ceiling in calls a second (no rate: not refused yet), credit (calls that may start before the first
# refusal), moved (the last grant or answer: credit that dead workers took along is given anew), slot (when the next call may
# start), until (nobody calls before), cut (the last time that the rate was lowered), grown (up to when it has grown), streak
# (refusals without an answer in between), best (accepted calls in a second, fading). b0 to b7 count accepted calls in quarters
# of a second, t0 to t7 say in which; r0 to r7 the refused ones.
SCRIPT = """
local INITIAL, WINDOW, SMALLEST, FORGET, STALE = 32, 4, 0.2, 3600, 5
local key, verb = KEYS[1], ARGV[1]
local now = tonumber(ARGV[2])
if not now then
  local time = redis.call('TIME')
  now = tonumber(time[1]) + tonumber(time[2]) / 1000000
end
local state = {}
local raw = redis.call('HGETALL', key)
for i = 1, #raw, 2 do state[raw[i]] = tonumber(raw[i + 1]) end
local changed = {}
local function set(name, value) state[name] = value; changed[name] = value end
local function bucket(at, name, by)
  local number = math.floor(at * WINDOW)
  local place = number % 8
  if (state['t' .. place] or -1) < number then
    set('t' .. place, number); set('b' .. place, 0); set('r' .. place, 0)
  end
  if state['t' .. place] == number then set(name .. place, state[name .. place] + by) end
end
local function sum(name)
  local number, total = math.floor(now * WINDOW), 0
  for place = 0, 7 do
    local age = number - (state['t' .. place] or -100)
    if age >= 0 and age < WINDOW then total = total + state[name .. place] end
  end
  return total
end
local function grow()
  local since, cut = state.grown or now, state.cut or now
  local passed = math.min(now - since, 5)
  if passed <= 0 then return end
  local quiet = math.max(0, now - math.max(cut, state['until'] or 0))
  local share = 0.002 * (1 + (quiet / 15) ^ 2)
  if state.rate < 0.95 * state.ceiling then share = 0.03 end
  if state.rate < 2 then share = 0.1 end
  set('rate', math.min(state.rate * (1 + math.min(share, 0.1)) ^ passed, 10000))
  set('ceiling', math.max(state.ceiling, state.rate))
  set('grown', now)
end
local granted, wait = 0, 0
if verb == 'take' then
  local wanted = tonumber(ARGV[3])
  if (state['until'] or 0) > now then
    wait = state['until'] - now
  elseif state.rate then
    grow()
    local slot = math.max(state.slot or now, now - 0.1)
    while granted < wanted and slot <= now do
      granted = granted + 1
      slot = slot + 1 / state.rate
    end
    set('slot', slot)
    wait = math.max(0, slot - now)
  else
    local credit = state.credit or INITIAL
    if credit < 1 and now - (state.moved or now) > STALE then credit = INITIAL end
    granted = math.min(wanted, credit)
    set('credit', credit - granted)
    if granted < wanted then wait = 0.05 end
  end
  if granted > 0 then
    bucket(now, 'b', granted)
    set('moved', now)
    local faded = (state.best or 0) * 0.5 ^ (math.max(0, now - (state.best_at or now)) / 20)
    set('best', math.max(faded, sum('b'))); set('best_at', now)
  end
elseif verb == 'returned' then
  local unused, taken = tonumber(ARGV[3]), tonumber(ARGV[4])
  bucket(taken, 'b', -unused)
  if state.rate then set('slot', (state.slot or now) - unused / state.rate) end
  set('credit', (state.credit or INITIAL) + unused)
elseif verb == 'answered' then
  local answers = tonumber(ARGV[3])
  set('moved', now)
  if (state.streak or 0) > 0 then set('streak', 0) end
  if not state.rate then set('credit', math.min((state.credit or INITIAL) + 2 * answers, 1000)) end
elseif verb == 'refused' then
  local started, asked = tonumber(ARGV[3]), tonumber(ARGV[4])
  if started <= 0 then started = now end
  local is_same_wave = started <= (state.cut or 0)
  bucket(started, 'b', -1)
  bucket(started, 'r', 1)
  if not is_same_wave then set('streak', (state.streak or 0) + 1) end
  local pause = asked
  if pause < 0 then pause = math.min(60, 0.5 * 2 ^ math.min((state.streak or 1) - 1, 7)) end
  set('until', math.max(state['until'] or 0, now + pause))
  local accepted, refused = math.max(0, sum('b')), sum('r')
  local is_wave = refused >= 4 and refused >= 0.3 * (accepted + refused)
  if accepted < 2 and (is_wave or not state.rate) then
    -- Everything was refused: that tells of no rate. Begin anew, with fewer.
    if not is_same_wave then set('credit', math.min(INITIAL, math.max(4, math.floor((state.credit or INITIAL) / 2)))) end
    redis.call('HDEL', key, 'rate', 'ceiling')
    state.rate, state.ceiling, changed.rate, changed.ceiling = nil, nil, nil, nil
  elseif not state.rate or is_wave then
    local estimate = math.max(SMALLEST, accepted)
    set('ceiling', math.min(state.rate and state.ceiling or estimate, estimate))
    set('rate', math.min(state.rate or estimate, 0.95 * estimate))
  elseif not is_same_wave then
    set('ceiling', state.ceiling * 0.99)
    set('rate', math.max(SMALLEST, 0.97 * state.rate, math.min(0.5 * (state.best or 0), state.rate)))
  end
  if not is_same_wave then set('cut', now) end
  set('grown', math.max(now, state['until']))
  set('slot', state['until'])
end
local flat = {}
for name, value in pairs(changed) do flat[#flat + 1] = name; flat[#flat + 1] = string.format('%.17g', value) end
if #flat > 0 then redis.call('HSET', key, unpack(flat)); redis.call('EXPIRE', key, FORGET) end
return {granted, math.ceil(wait * 1000000), string.format('%.6f', now)}
"""


@dataclass(frozen=True, slots=True)
class Leave:
    """How many calls may start now.

    Attributes:
        wait: seconds until more may start; 0 where it depends on answers.
        at: the moment, as Redis tells it; hand it back with a refusal.
    """

    calls: int
    wait: float
    at: float


class Pace:
    """The pace of one provider and key.

    Args:
        fingerprint: names both; the key cannot be told from it.
    """

    def __init__(self, fingerprint: str) -> None:
        self._key = KEY.format(fingerprint)

    def take(self, calls: int, *, now: float | None = None) -> Leave:
        """Ask to start so many calls; what is granted counts as started.

        Args:
            now: seconds; None for the clock of Redis, which all workers share.
        """
        found = self._run("take", now, calls)
        if found is None:
            return Leave(min(calls, MODEST_CALLS), MODEST_SECONDS, 0.0)
        granted, wait, at = found
        return Leave(int(granted), int(wait) / MICROSECONDS, float(at))

    def returned(self, calls: int, *, taken_at: float, now: float | None = None) -> None:
        """Give back leave for calls that were not started.

        Args:
            taken_at: as `Leave.at` had it.
        """
        self._run("returned", now, calls, taken_at)

    def answered(self, calls: int, *, now: float | None = None) -> None:
        """Tell that so many calls were answered, with whatever but a refusal for the pace."""
        self._run("answered", now, calls)

    def refused(self, *, started_at: float, retry_after: float | None, now: float | None = None) -> None:
        """Tell that a call was refused because of the pace.

        Args:
            started_at: as `Leave.at` had it.
            retry_after: seconds that the provider asked for; None when it did not say.
        """
        self._run("refused", now, started_at, -1 if retry_after is None else min(retry_after, 3600.0))

    def _run(self, verb: str, now: float | None, *values: float) -> Any:
        arguments: list[str | float] = [verb, "" if now is None else repr(now), *values]
        return redis_client.attempt(lambda client: _script()(keys=[self._key], args=arguments, client=client), None)


@cache
def _script() -> Script:
    return redis_client.client().register_script(SCRIPT)
