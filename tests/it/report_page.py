"""Opens reports in a browser as a reader does, and says what it saw: report_page.py BROWSER JOB DATA SHOTS."""

import json
import pathlib
import sys

from playwright.sync_api import sync_playwright

BROWSER, JOB, DATA, SHOTS = sys.argv[1:]
WIDTH = 1200


def look(browser, path, scheme):
    context = browser.new_context(color_scheme=scheme, viewport={"width": WIDTH, "height": 900})
    page = context.new_page()
    seen = {"errors": [], "requests": [], "alerts": 0}
    page.on("console", lambda message: seen["errors"].append(message.text))
    page.on("pageerror", lambda error: seen["errors"].append(str(error)))
    page.on("request", lambda request: seen["requests"].append(request.url))
    page.on("dialog", lambda dialog: (seen.update(alerts=seen["alerts"] + 1), dialog.dismiss()))
    page.goto(pathlib.Path(path).as_uri())
    # The page itself is the one request.
    seen["requests"] = seen["requests"][1:]
    return context, page, seen


def background(page):
    return page.evaluate("getComputedStyle(document.body).backgroundColor")


def hover(page):
    picture = page.locator("svg[aria-label='Loss by step']").first
    picture.scroll_into_view_if_needed()
    box = picture.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + box["height"] * 0.5)
    value = picture.locator("xpath=..").locator(".tip").text_content()
    page.mouse.move(0, 0)
    picture.focus()
    page.keyboard.press("Home")
    return value, picture.locator("xpath=..").locator(".tip").text_content()


with sync_playwright() as driver:
    browser = driver.chromium.launch(executable_path=__import__("shutil").which(BROWSER), args=["--no-sandbox"])
    said = {}
    for name, path in [("job", JOB), ("data", DATA)]:
        for scheme in ["light", "dark"]:
            context, page, seen = look(browser, path, scheme)
            seen[scheme] = background(page)
            page.screenshot(path=f"{SHOTS}/{name}-{scheme}.png", full_page=True)
            if scheme == "light":
                seen["headings"] = page.locator("h2").all_text_contents()
                seen["wide"] = page.evaluate(f"document.documentElement.scrollWidth > {WIDTH}")
                seen["unnamed"] = page.evaluate(
                    "[...document.querySelectorAll('svg:not([aria-hidden]), table')]"
                    ".filter(e => !(e.getAttribute('aria-label') || e.caption)).map(e => e.outerHTML.slice(0, 80))"
                )
                seen["text"] = page.locator("main").text_content()[:200_000]
                if name == "job":
                    seen["hover"], seen["keys"] = hover(page)
                page.evaluate("dispatchEvent(new Event('beforeprint'))")
                seen["printed"] = page.locator("details:not([open])").count() == 0
            context.close()
            said[name] = {**said.get(name, {}), **seen, "errors": said.get(name, {}).get("errors", []) + seen["errors"]}
    browser.close()
print(json.dumps(said))
