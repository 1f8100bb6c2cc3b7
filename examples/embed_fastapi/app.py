"""The reasoner inside a FastAPI app: an endpoint of your own, and the OpenAI-compatible server mounted beside it.

RUN=runs/demo uvicorn app:app
"""

import os
from contextlib import asynccontextmanager

from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

from insightv import Reasoner
from insightv.errors import InputError, InsightvError
from insightv.records import AskOptions
from insightv.server.app import make_app

reasoner = Reasoner.load(os.environ["RUN"])
chat = make_app(reasoner)  # /ai/v1/chat/completions, and a page at /ai/


@asynccontextmanager
async def lifespan(app):
    yield
    await chat.aclose()
    await reasoner.aclose()


app = FastAPI(lifespan=lifespan)
app.mount("/ai", chat)


class Ask(BaseModel):
    image: str  # a data URL
    question: str


@app.post("/answers")
async def answers(ask: Ask):
    if not ask.image.startswith("data:image/"):  # a client must not name files of this machine
        raise HTTPException(422, "send the image as a data URL")
    try:
        answer = await reasoner.aanswer(ask.image, ask.question, options=AskOptions(deadline_s=60))
    except InputError as error:
        raise HTTPException(422, str(error)) from None
    except InsightvError:
        raise HTTPException(503, "the reasoner cannot answer now") from None
    steps = [step.title for step in answer.path.steps]
    return {"answer": answer.text, "steps": steps, "followed": answer.followed, "flags": answer.flags}
