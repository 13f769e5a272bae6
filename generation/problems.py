"""What generation refuses, and why, for callers who can do something about it."""

from engarde.common.problems import Problem


class LLMKeyMissing(Problem):
    """Neither the tenant nor the platform has a key for the provider."""

    status, code, title = 409, "llm_key_missing", "Provider key missing"


class LLMKeyInvalid(Problem):
    """The provider refused the key."""

    status, code, title = 409, "llm_key_invalid", "Provider key invalid"


class LLMNoCredit(Problem):
    """The account behind the key has nothing left to spend."""

    status, code, title = 409, "llm_no_credit", "No credit with the provider"


class LLMNotConfigured(Problem):
    """The platform does not know where the provider is."""

    status, code, title = 409, "llm_not_configured", "Provider not set up"


class LLMUnavailable(Problem):
    """The provider does not answer, or not usably."""

    status, code, title = 503, "llm_unavailable", "Provider unavailable"


class LLMRateLimited(Problem):
    """The provider asks for fewer calls."""

    status, code, title = 503, "llm_rate_limited", "Provider is busy"


class GenerationFailed(Problem):
    """The model did not write what was asked for; `reason` has the item error's code."""

    status, code, title = 422, "generation_failed", "Nothing usable was generated"


class GenerationTimeout(Problem):
    """The deadline was over before all variants were there."""

    status, code, title = 504, "generation_timeout", "Generation took too long"


class GenerationBusy(Problem):
    """This process generates as much as it may at once."""

    status, code, title = 503, "generation_busy", "Too many generations at once"


class TooManyJobs(Problem):
    """The tenant has as many unfinished jobs as it may have."""

    status, code, title = 409, "too_many_jobs", "Too many unfinished jobs"


class JobFinished(Problem):
    """There is nothing left to cancel or to resume."""

    status, code, title = 409, "job_finished", "Job finished"


class NotPaused(Problem):
    """Only a paused job can be resumed."""

    status, code, title = 409, "job_not_paused", "Job not paused"


class NotFinished(Problem):
    """A job's failed items can be tried again once it has ended."""

    status, code, title = 409, "job_not_finished", "Job not finished"


class NothingToRetry(Problem):
    """No item failed."""

    status, code, title = 409, "nothing_to_retry", "Nothing to retry"


class CostCapReached(Problem):
    """Not one more item can be tried without a chance to go over `max_cost_usd`."""

    status, code, title = 409, "cost_cap_reached", "Cost cap reached"
