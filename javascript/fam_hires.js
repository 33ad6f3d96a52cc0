// What the WebUI calls by name: switching to the tab, and starting a generation with its progress bar.

function switch_to_fam_hires() {
    const tab = Array.from(gradioApp().querySelectorAll('#tabs > div > button')).find(
        (button) => button.textContent.trim() === 'FAM Hires',
    );
    if (tab) {
        tab.click();
    }
    return Array.from(arguments);
}

function recalculate_prompts_fam_hires() {
    return Array.from(arguments);
}

function fam_hires_submit() {
    const values = Array.from(arguments);
    if (typeof randomId !== 'function' || typeof requestProgress !== 'function') {
        return values;
    }
    const id = randomId();
    requestProgress(
        id,
        gradioApp().getElementById('fam_hires_gallery_container'),
        gradioApp().getElementById('fam_hires_gallery'),
        () => {},
    );
    values[0] = id;
    return values;
}
