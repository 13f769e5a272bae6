"""The baseline of generation: a bare asyncio loop over the same SDK, which stores nothing. Run as a program of its own.

Arguments: base URL, items, calls at once. Waits for a line on stdin, then prints the seconds that it took.
"""

import asyncio
import sys
import time

from generation import prompts, writing
from generation.llm.openai import OpenAIGenerator
from generation.prompts import BrandVoice, Brief
from generation.writing import Manner


async def run(base_url: str, items: int, at_once: int) -> float:
    generator = OpenAIGenerator(
        base_url=base_url, api_key="sk-bare-loop-0123456789", limit_name="max_completion_tokens"
    )
    manner = Manner(model="gpt-test", max_tokens=2048, timeout=60)
    brief = Brief(prompt="", content_type="post", brand=BrandVoice("A brand", "", "en"))
    room = asyncio.Semaphore(at_once)

    async def one(index: int) -> None:
        async with room:
            await writing.write(
                generator, manner, brief.message(prompts.fill("Write about {topic}.", f"number {index}"))
            )

    begun = time.monotonic()
    await asyncio.gather(*(one(index) for index in range(items)))
    took = time.monotonic() - begun
    await generator.close()
    return took


def main() -> None:
    base_url, items, at_once = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    sys.stdout.write(f"{asyncio.run(run(base_url, items, at_once))}\n")


if __name__ == "__main__":
    main()
