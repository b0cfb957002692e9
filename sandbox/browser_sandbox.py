"""`BrowserSandbox`: a browser in a box, with its tools."""

# No `from __future__ import annotations`: AgentScope 1.x reads the annotations of tool functions as they are.

from typing import ClassVar

from greenroom.sandbox.backend import BoxKind
from greenroom.sandbox.base_sandbox import BaseSandbox
from greenroom.sandbox.calling import ToolAnswer, never_blocks


class BrowserSandbox(BaseSandbox):
    """A sandbox with a browser, besides Python and a shell. All of `BaseSandbox` holds.

    `element` is what an element is, in words for a person who reads along; `ref` is its reference in the newest
    snapshot, which nearly every tool's answer contains. Docstrings are what models are told of the tools.
    """

    kind: ClassVar[BoxKind] = "browser"

    @never_blocks
    def browser_navigate(self, url: str) -> ToolAnswer:
        """Load a web address in the current tab, and get a snapshot of the page. Start here when nothing is
        open.

        Args:
            url (str): The address, for example `https://example.com/news`. http, https, about, data and blob
                only.
        """
        return self._tool("browser_navigate", url=url)

    @never_blocks
    def browser_navigate_back(self) -> ToolAnswer:
        """Go back to the previous page of the current tab's history."""
        return self._tool("browser_navigate_back")

    @never_blocks
    def browser_navigate_forward(self) -> ToolAnswer:
        """Go forward to the next page of the current tab's history."""
        return self._tool("browser_navigate_forward")

    @never_blocks
    def browser_snapshot(self, ref: str = "", depth: int | None = None) -> ToolAnswer:
        """See the current page: its address, its title, and a tree of its elements (roles, names, texts) as
        YAML, where each element has a `[ref=...]` that the other tools take. Better than a screenshot for
        acting on a page. The answers of navigate, click, type and the like contain a new snapshot already.

        Args:
            ref (str, optional): Only this element and what it contains, for pages that are too long. A ref of
                the newest one.
            depth (int, optional): How many levels of elements to show, for an overview of a page that is too
                long.
        """
        return self._tool("browser_snapshot", ref=ref, depth=depth)

    @never_blocks
    def browser_take_screenshot(
        self, raw: bool = False, filename: str = "", element: str = "", ref: str = ""
    ) -> ToolAnswer:
        """Take a picture of what is visible of the current page, or of one element. Look at it where the
        page's looks matter; to act on elements you need the refs of browser_snapshot.

        Args:
            raw (bool, optional): true: PNG, lossless and larger. false: JPEG.
            filename (str, optional): Also keep the picture, as this file in the workspace, for example
                `shots/home.png`.
            element (str, optional): What the element is, in words, if only one element is to be taken. Needs
                `ref`.
            ref (str, optional): The element's reference in the newest snapshot; without one, the visible page
                is taken.
        """
        return self._tool("browser_take_screenshot", raw=raw, filename=filename, element=element, ref=ref)

    @never_blocks
    def browser_wait_for(self, time: float | None = None, text: str = "", text_gone: str = "") -> ToolAnswer:
        """Wait until a text appears, until a text is gone, or for some time, then get a snapshot. Prefer
        waiting for a text to waiting for time. With several arguments they are waited for one after another.

        Args:
            time (float, optional): Seconds to wait, fewer than the call may take. To wait for longer, call it again.
            text (str, optional): Wait until this text is visible on the page.
            text_gone (str, optional): Wait until this text is no longer visible on the page.
        """
        return self._tool("browser_wait_for", time=time, text=text, text_gone=text_gone)

    @never_blocks
    def browser_resize(self, width: int, height: int) -> ToolAnswer:
        """Change the size of the browser's window, for example to see a page as on a phone.

        Args:
            width (int): Width in CSS pixels, for example 1280.
            height (int): Height in CSS pixels, for example 720.
        """
        return self._tool("browser_resize", width=width, height=height)

    @never_blocks
    def browser_close(self) -> ToolAnswer:
        """Close the current tab. When it was the last, an empty one takes its place."""
        return self._tool("browser_close")

    @never_blocks
    def browser_click(self, element: str, ref: str) -> ToolAnswer:
        """Click an element: a link, button, checkbox, radio button, tab and so on.

        Args:
            element (str): What the element is, in words for a person, for example `Search button`.
            ref (str): The element's reference in the newest snapshot: for `button "Search" [ref=e12]` it is
                `e12`.
        """
        return self._tool("browser_click", element=element, ref=ref)

    @never_blocks
    def browser_type(
        self, element: str, ref: str, text: str, submit: bool = False, slowly: bool = False
    ) -> ToolAnswer:
        """Fill a text field: its old content is replaced by the text.

        Args:
            element (str): What the element is, in words for a person, for example `Search button`.
            ref (str): The element's reference in the newest snapshot: for `button "Search" [ref=e12]` it is
                `e12`.
            text (str): The text that shall be in the field.
            submit (bool, optional): Press Enter afterwards, which submits most forms and searches.
            slowly (bool, optional): Type key by key and keep the field's old content. For fields that react
                to single keys, such as those that suggest completions.
        """
        return self._tool("browser_type", element=element, ref=ref, text=text, submit=submit, slowly=slowly)

    @never_blocks
    def browser_select_option(self, element: str, ref: str, values: list[str]) -> ToolAnswer:
        """Choose in a drop-down list (a `combobox` or `listbox` with `option`s made by a select element).
        What was chosen before is replaced. Lists made of other elements are clicked instead.

        Args:
            element (str): What the element is, in words for a person, for example `Search button`.
            ref (str): The element's reference in the newest snapshot: for `button "Search" [ref=e12]` it is
                `e12`.
            values (list[str]): The options, by value or by visible label. More than one for lists that allow
                it.
        """
        return self._tool("browser_select_option", element=element, ref=ref, values=values)

    @never_blocks
    def browser_hover(self, element: str, ref: str) -> ToolAnswer:
        """Move the mouse over an element, for example to open a menu or see a tooltip.

        Args:
            element (str): What the element is, in words for a person, for example `Search button`.
            ref (str): The element's reference in the newest snapshot: for `button "Search" [ref=e12]` it is
                `e12`.
        """
        return self._tool("browser_hover", element=element, ref=ref)

    @never_blocks
    def browser_drag(self, start_element: str, start_ref: str, end_element: str, end_ref: str) -> ToolAnswer:
        """Drag one element and drop it onto another.

        Args:
            start_element (str): What is dragged, in words for a person.
            start_ref (str): Its reference in the newest snapshot.
            end_element (str): Onto what it is dropped, in words for a person.
            end_ref (str): Its reference in the newest snapshot.
        """
        return self._tool(
            "browser_drag",
            start_element=start_element,
            start_ref=start_ref,
            end_element=end_element,
            end_ref=end_ref,
        )

    @never_blocks
    def browser_press_key(self, key: str) -> ToolAnswer:
        """Press a key, or a combination, where the keyboard's focus is.

        Args:
            key (str): A character such as `a`, or a key's name: `Enter`, `Tab`, `Escape`, `ArrowDown`,
                `PageDown`, `Backspace`. Combinations: `Control+a`, `Shift+Tab`.
        """
        return self._tool("browser_press_key", key=key)

    @never_blocks
    def browser_handle_dialog(self, accept: bool, prompt_text: str = "") -> ToolAnswer:
        """Answer a dialog of the page (alert, confirm, prompt, or the question whether to leave it). Until
        then the page stands still. Results say when one is open.

        Args:
            accept (bool): true: OK. false: Cancel.
            prompt_text (str, optional): What to enter, where the dialog asks for a text.
        """
        return self._tool("browser_handle_dialog", accept=accept, prompt_text=prompt_text)

    @never_blocks
    def browser_file_upload(self, paths: list[str]) -> ToolAnswer:
        """Give files to the file chooser of the page. Click the page's upload button or file field first;
        the result says that a file chooser is open.

        Args:
            paths (list[str]): The files, in the workspace: `/workspace/report.pdf`, or `report.pdf`. An empty
                list cancels it.
        """
        return self._tool("browser_file_upload", paths=paths)

    @never_blocks
    def browser_console_messages(self) -> ToolAnswer:
        """Get the messages and errors of the page's console since it was loaded."""
        return self._tool("browser_console_messages")

    @never_blocks
    def browser_network_requests(self) -> ToolAnswer:
        """Get the requests the page has made since it was loaded, with their status."""
        return self._tool("browser_network_requests")

    @never_blocks
    def browser_pdf_save(self, filename: str = "") -> ToolAnswer:
        """Save the current page as a PDF in the workspace.

        Args:
            filename (str, optional): The file's name there, for example `article.pdf`. Without one, one is
                made up.
        """
        return self._tool("browser_pdf_save", filename=filename)

    @never_blocks
    def browser_tab_list(self) -> ToolAnswer:
        """List the open tabs, with their numbers, titles and addresses."""
        return self._tool("browser_tab_list")

    @never_blocks
    def browser_tab_new(self, url: str = "") -> ToolAnswer:
        """Open a tab and make it the current one.

        Args:
            url (str, optional): The address to load in it. Without one it stays empty.
        """
        return self._tool("browser_tab_new", url=url)

    @never_blocks
    def browser_tab_select(self, index: int) -> ToolAnswer:
        """Make another tab the current one, and get a snapshot of it.

        Args:
            index (int): The tab's number in browser_tab_list; the first is 1.
        """
        return self._tool("browser_tab_select", index=index)

    @never_blocks
    def browser_tab_close(self, index: int | None = None) -> ToolAnswer:
        """Close a tab. If it was the current one, the one before it becomes that.

        Args:
            index (int, optional): The tab's number in browser_tab_list; the first is 1. Without one, the
                current tab.
        """
        return self._tool("browser_tab_close", index=index)
