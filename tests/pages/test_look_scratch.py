import time
from tests.pages.test_treatments_browser import *  # noqa
from tests.pages.test_treatments import *  # noqa
from app.treatments.models import Similarity


def test_time(processor, browser, set_id):
    id_ = started(browser, set_id)
    ups = [uploaded(processor.upload("stranger", str(n))) for n in range(60)]
    go_elsewhere(processor, id_, ups)
    with processor.app.app_context():
        db.session.execute(
            db.text(
                "insert into regions (treatment_id, document, source, x, y, width, height) select :id, :p || (n % 60 + :o), :p || (n % 60 + :o), n, n, 5, 5 from generate_series(1, 60000) n"
            ),
            {"id": id_, "p": "upload-", "o": ups[0].resource_id},
        )
        db.session.execute(db.text("set statement_timeout=0"))
        db.session.execute(
            db.text(
                "insert into similarities (treatment_id, document, a, b, score) select :id, 'd', 'a' || n, 'b', random() from generate_series(1, 600000) n"
            ),
            {"id": id_},
        )
        db.session.commit()
    for _ in range(3):
        begin = time.perf_counter()
        page = browser.get(f"/jobs/{id_}")
        print("TIME", time.perf_counter() - begin, len(page.data), page.status_code)
    for f in (treated.regions, treated.pairs):
        with processor.app.app_context(), transaction(is_read=True):
            begin = time.perf_counter()
            f(id_)
            print("SQL", f.__name__, time.perf_counter() - begin)


def test_running(chromium, site):
    job = site.treat("Plates of the atlas")
    page = site.visit(quiet(chromium, viewport={"width": 1280, "height": 800}), f"/{job.id}")
    sign_in(page)
    site.find(job, "result-1.json", "first page", "first page", "second page")
    expect(page.locator("figure")).to_have_count(2)
    page.click("summary >> nth=0")
    page.screenshot(path="/tmp/look5/running-light-1280.png")
    page.emulate_media(color_scheme="dark")
    page.screenshot(path="/tmp/look5/running-dark-1280.png")
