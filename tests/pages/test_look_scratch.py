from tests.pages.test_treatments_browser import *  # noqa
from tests.images.pictures import photo


def test_look(chromium, site, world):
    page = site.visit(quiet(chromium, viewport={"width": 1280, "height": 900}))
    sign_in(page, "owner")
    page.goto(f"{site.url}/document-sets/new")
    page.fill("[name=title]", "Plates of the atlas")
    files = [
        picture("one"),
        picture("two"),
        {"name": "p.jpg", "mimeType": "image/jpeg", "buffer": encode(photo(900, 600), "jpeg")},
    ]
    page.set_input_files("[name=file]", files)
    page.check(f"[name=event][value='{world.events['published']}']")
    page.click("button:has-text('Make the set')")
    page.wait_for_url("**/jobs/treatments/new?document-set=*")
    set_url = page.url
    ids = {}
    for kind in ("similarity", "regions"):
        page.goto(set_url + f"&task-type={kind}")
        page.click("button:has-text('Start the treatment')")
        expect(page.locator("#job[data-state=succeeded]")).to_be_visible(timeout=A_MINUTE)
        ids[kind] = page.url
    set_id = set_url.rpartition("=")[2]
    pages = {
        "jobs": site.url,
        "regions": ids["regions"],
        "similarity": ids["similarity"],
        "treatment-new": f"{site.url}/treatments/new?document-set={set_id}&task-type=regions",
        "treatment-tasks": f"{site.url}/treatments/new",
        "treatment-wrong": f"{site.url}/treatments/new?document-set=99999&task-type=regions&notify-email=perhaps&model="
        + "x" * 101,
        "sets": f"{site.url}/document-sets",
        "set-new": f"{site.url}/document-sets/new?title=From+a+link&event={world.events['published']}&faq={world.faqs['published']}&upload=99999",
    }
    for scheme, width in (("light", 1280), ("dark", 1280), ("light", 360), ("dark", 360)):
        context = quiet(chromium, viewport={"width": width, "height": 800}, color_scheme=scheme)
        context.add_cookies(page.context.cookies())
        window = context.new_page()
        for name, url in pages.items():
            window.goto(url)
            window.wait_for_timeout(300)
            window.screenshot(path=f"/tmp/look5/{name}-{scheme}-{width}.png", full_page=True)
            w = window.locator("html").evaluate("page => page.scrollWidth")
            print(name, width, w)
            assert w <= width, name
    assert not [c for c in site.complaints if "404" not in c]
