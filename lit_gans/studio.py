"""The verb that opens the studio: `lit-gans studio runs/stylegan2-faces`, then http://127.0.0.1:7860 in a browser."""

import os
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

from lit_gans.base.command import run_verb


def studio(
    run: str | os.PathLike,
    *,
    host: str = "127.0.0.1",
    port: int = 7860,
    folder: str | os.PathLike | None = None,
    files: Sequence[str] = (),
    image_text: str | None = None,
    image_text_weights: str | None = None,
    lpips: Literal["vgg", "alex", "squeeze", "pixels"] = "squeeze",
    lpips_weights: str | os.PathLike | None = None,
    device: str = "auto",
    trust: str | None = None,
) -> str:
    """A page in the browser where trained models draw, and where what they draw is changed; until Ctrl-C.

    Seeds, classes, truncation, mixing, films, photographs, translation, captions: whatever the model can. All that is
    done is an edit script, which `lit-gans edit` replays to the same picture. Only this machine reaches the page unless
    `host` says otherwise; nothing is sent anywhere, and no file is read but the model's and those of `folder`.

    Args:
        run: run folder, .ckpt file, saved folder, or a folder that holds several of them.
        host: address to listen at; 0.0.0.0 is reached by all machines of the network, and asks for no password.
        port: 0 takes any that is free.
        folder: where uploaded and made files lie; by default they are gone at the end.
        files: directions, mappers and shifts to move pictures along: see lit-gans directions and lit-gans restyle.
        image_text: what compares images with texts, for edits by text: see lit-gans restyle.
        image_text_weights: its further file or folder.
        lpips: network that photographs are compared by, with torchvision's weights from the file lpips_weights, else
            the cache or a download; "pixels" is none.
        lpips_weights: file of that network's weights.
        device: cpu, cuda, cuda:1, ...; "auto" is the accelerator where there is one.
        trust: another package whose classes and losses the models may name.

    Raises:
        ValueError, FileNotFoundError: no model, no port, or the extra `studio` is missing.
    """
    from lit_gans.base.processes import find_device
    from lit_gans.editing.studio.files import Files
    from lit_gans.editing.studio.models import Models, models_of

    try:
        from lit_gans.editing.studio.server import is_local, serve
        from lit_gans.editing.studio.work import Studio
    except ModuleNotFoundError as error:
        raise ValueError(f"the studio needs {error.name}: pip install 'lit-gans[studio]'") from error
    if not 0 <= port < 2**16:
        raise ValueError(f"port {port}: give 0 to 65535")
    places = models_of(Path(run))
    with ExitStack() as stack:
        home = folder if folder is not None else stack.enter_context(tempfile.TemporaryDirectory(prefix="studio-"))
        models = Models(places, device=find_device(device), trust=trust)
        models[next(iter(places))]  # what cannot be read is said before there is a page
        texts = {"image_text": placed(image_text), "weights": placed(image_text_weights)}
        texts = {name: one for name, one in texts.items() if one is not None}
        working = Studio(
            models,
            Files(Path(home), granted=list(texts.values())),
            image_text=texts or None,
            lpips=lpips,
            lpips_weights=None if lpips_weights is None else Path(lpips_weights),
            local=is_local(host),
        )
        working.moves = [working.offer(Path(file).read_bytes(), Path(file).stem) for file in files]
        if not is_local(host):
            print(f"lit-gans studio: all who reach {host} can use it: there is no password", file=sys.stderr)
        try:
            serve(working, host=host, port=port, ready=lambda at: print(f"{at}  (Ctrl-C ends it)", flush=True))
        except KeyboardInterrupt:
            pass
    return "closed"


def placed(spec: str | None) -> str | None:
    """As a script in another folder says it: of what is there the whole path."""
    return str(Path(spec).resolve()) if spec is not None and Path(spec).exists() else spec


def main(argv: Sequence[str] | None = None) -> int:
    """The command; the exit status."""
    return run_verb(studio, argv)


if __name__ == "__main__":
    sys.exit(main())
