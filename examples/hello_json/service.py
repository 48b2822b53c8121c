# Shows JSON in and out by pydantic models: a call is checked before it runs, and clients know its schema.

import bentoml
from pydantic import BaseModel, Field


class Person(BaseModel):
    name: str = Field(min_length=1)
    languages: list[str] = []


class Greeting(BaseModel):
    text: str
    polyglot: bool


@bentoml.service
class HelloJson:
    @bentoml.api
    def greet(self, person: Person, times: int = 1) -> Greeting:
        """Greets a person, `times` times."""
        return Greeting(text=" ".join([f"Hello, {person.name}!"] * times), polyglot=len(person.languages) > 1)
