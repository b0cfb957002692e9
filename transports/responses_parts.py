"""Parts of items of the Responses API, as requests hold them: content, and the form in which it is listed."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, TypeAlias

from greenroom.actors.errors import InvalidRequest
from greenroom.actors.messages import Audio, Content, File, Image, Refusal, Text, Video
from greenroom.transports.json_checks import (
    mapping,
    needed_string,
    optional_string,
    wrong,
)
from greenroom.transports.responses_text import answer_text

Listed: TypeAlias = dict[str, Any]
DETAILS = ("low", "high", "auto", "original")


def read_content(value: Any, at: str, role: str) -> tuple[tuple[Content, ...], list[Listed]]:
    """What a message holds: a string or a list of parts. Raises `InvalidRequest`."""
    if type(value) is str:
        return (Text(value),), [_text_of(value, role)]
    parts = [read_part(part, f"{at}[{place}]") for place, part in enumerate(_parts(value, at))]
    return tuple(parts), [listed_part(part, role, raw) for part, raw in zip(parts, value, strict=True)]


def read_part(value: Any, at: str) -> Content:
    """One part. Raises `InvalidRequest` that names the part, or what in it is wrong."""
    if type(value) is not dict:
        wrong(at, 'a part (an object such as {"type": "input_text", "text": "Hello"})', value)
    kind = value.get("type")
    read = _PARTS.get(kind) if type(kind) is str else None
    if read is None:
        shown = "no type" if kind is None else f"the type {ascii(kind)[:40]}"
        raise InvalidRequest(
            f"{at} has {shown}; a part is one of {', '.join(dict.fromkeys(_PARTS))}", field=at
        )
    return read(value, at)


def read_texts(value: Any, at: str, kinds: Collection[str]) -> list[str]:
    """The texts of a list of parts of these kinds, as reasoning has them. `null` is none."""
    if value is None:
        return []
    texts = []
    for place, part in enumerate(_parts(value, at)):
        where = f"{at}[{place}]"
        fields = mapping(part, where)
        if fields.get("type") not in kinds:
            raise InvalidRequest(f"{where} must be of the type {' or '.join(kinds)}", field=where)
        texts.append(needed_string(fields, "text", where, "a text says something"))
    return texts


def listed_part(part: Content, role: str, raw: Listed | None = None) -> Listed:
    """A part as lists of items show it. `raw`: as it was sent."""
    match part:
        case Image(url):
            detail = (raw or {}).get("detail")
            return {"type": "input_image", "detail": detail or "auto", "file_id": None, "image_url": url}
        case Audio(data, sound):
            return {"type": "input_audio", "input_audio": {"data": data, "format": sound or "wav"}}
        case Video(url):
            return {"type": "input_video", "video_url": url}
        case File():
            named = ("file_data", "file_id", "file_url", "filename")
            given = {name: getattr(part, name) for name in named}
            return {
                "type": "input_file",
                **{name: value for name, value in given.items() if value is not None},
            }
        case Refusal(refusal) if role == "assistant":
            return {"type": "refusal", "refusal": refusal}
        case _:
            return _text_of(answer_text(part), role)


def _text_of(text: str, role: str) -> Listed:
    if role == "assistant":
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    return {"type": "input_text", "text": text}


def _parts(value: Any, at: str) -> list[Any]:
    if type(value) is not list:
        wrong(at, "a string or a list of parts", value)
    return value


def _text(part: Listed, at: str) -> Text:
    return Text(needed_string(part, "text", at, f"a part of type {part['type']} needs it"))


def _refusal(part: Listed, at: str) -> Refusal:
    return Refusal(needed_string(part, "refusal", at, "a part of type refusal needs it"))


def _image(part: Listed, at: str) -> Image:
    url = part.get("image_url")
    if type(url) is dict:  # as Chat Completions has it
        url = url.get("url")
    if url is None and part.get("file_id") is not None:
        raise InvalidRequest(
            f"{at} names a file, and this server keeps none; give the image_url, which may be a data URI",
            field=at,
        )
    if (detail := part.get("detail")) is not None and detail not in DETAILS:
        raise InvalidRequest(f"{at}.detail must be one of {', '.join(DETAILS)}", field=f"{at}.detail")
    needed = "a part of type input_image needs it: a URL, or a data URI"
    return Image(needed_string({"image_url": url}, "image_url", at, needed))


def _file(part: Listed, at: str) -> File:
    url, file_id, data, filename = (
        optional_string(part, name, at) for name in ("file_url", "file_id", "file_data", "filename")
    )
    if url is None and file_id is None and data is None:
        raise InvalidRequest(f"{at} needs file_url, or file_data, or file_id", field=at)
    return File(url, file_id, data, filename)


def _audio(part: Listed, at: str) -> Audio:
    sound = mapping(part.get("input_audio"), f"{at}.input_audio")
    needed = "a part of type input_audio needs it: base64"
    data = needed_string(sound, "data", f"{at}.input_audio", needed)
    return Audio(data, optional_string(sound, "format", f"{at}.input_audio"))


def _video(part: Listed, at: str) -> Video:
    return Video(needed_string(part, "video_url", at, "a part of type input_video needs it"))


_PARTS: dict[Any, Callable[[Listed, str], Content]] = {
    "input_text": _text,
    "output_text": _text,
    "input_image": _image,
    "input_file": _file,
    "input_audio": _audio,
    "input_video": _video,
    "refusal": _refusal,
    "text": _text,
    "summary_text": _text,
    "reasoning_text": _text,
}
