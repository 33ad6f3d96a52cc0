"""Two ways to use FAM Hires through the WebUI's API; needs only Python and a WebUI started with --api.

python docs/api_client.py generate "a red apple" -o apple.png
python docs/api_client.py folder pictures/ -o pictures-fam/
"""

import argparse
import base64
import json
import time
import urllib.error
import urllib.request


def ask(url, body=None):
    """Return the JSON answer: GET, or POST with a body. An error's one sentence ends the program."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        answer = json.load(error)
        raise SystemExit(answer.get("detail") or answer.get("errors")) from None


def generate(server, prompt, output):
    """Make one picture: the WebUI's hires fix, with FAM by named fields in one dict."""
    body = {
        "prompt": prompt,
        "steps": 20,
        "width": 512,
        "height": 512,
        "enable_hr": True,
        "hr_scale": 2,
        "hr_upscaler": "Lanczos",
        "alwayson_scripts": {"FAM Hires": {"args": [{"preset": "balanced", "start": 0.8}]}},
    }
    answer = ask(f"{server}/sdapi/v1/txt2img", body)
    with open(output, "wb") as file:
        file.write(base64.b64decode(answer["images"][0]))
    print(json.loads(answer["info"])["infotexts"][0])


def folder(server, source, output):
    """Enlarge a folder on the server's disk: start, watch, report."""
    job = ask(f"{server}/fam-hires/v1/jobs", {"input": source, "output": output, "scale": 2, "fam": {"start": 0.7}})
    while job["state"] in ("planning", "running", "paused", "stopping"):
        time.sleep(1)
        job = ask(f"{server}/fam-hires/v1/jobs/{job['id']}")
        print(f"{job['state']}: {job['done']} of {job['total']}, {job['eta_seconds']} s left")
    for file in ask(f"{server}/fam-hires/v1/jobs/{job['id']}/report")["files"]:
        print(file["source"], file["state"], file["error"] or file["output"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["generate", "folder"])
    parser.add_argument("what", help="the prompt, or the folder")
    parser.add_argument("-o", "--output", required=True)
    parser.add_argument("--server", default="http://127.0.0.1:7860")
    options = parser.parse_args()
    {"generate": generate, "folder": folder}[options.command](options.server, options.what, options.output)
