// What the WebUI calls by name, and what a page must do itself: look again after a change, sort tables, mark a bad
// value. No logic that Python also has.

function fam_hires_root() {
    return typeof gradioApp === 'function' ? gradioApp() : document;
}

function fam_hires_element(id) {
    return fam_hires_root().querySelector(`#fam_hires_${id}`);
}

// by the place of its panel: a tab's button has no id, and its words are those of the page's language
function fam_hires_switch_to(panel) {
    const panels = Array.from(fam_hires_root().querySelectorAll('#tabs > .tabitem'));
    const tab = fam_hires_root().querySelectorAll('#tabs > .tab-nav > button')[
        panels.findIndex((one) => one.id === panel)
    ];
    if (tab) {
        tab.click();
    }
}

function switch_to_fam_hires() {
    fam_hires_switch_to('tab_fam_hires');
    return Array.from(arguments);
}

// the entry of the picture that is chosen now, which the server then reads: its place may get another one at any moment
function fam_hires_chosen(gallery, said) {
    return [extract_image_from_gallery(gallery)[0], said];
}

function fam_hires_send_on(sent, button) {
    if (sent.length) {
        fam_hires_element(button).click();
    }
    return [];
}

function fam_hires_to_png_info(gallery, said) {
    fam_hires_switch_to('tab_pnginfo');
    return fam_hires_chosen(gallery, said);
}

// the WebUI calls it for what is sent to inpaint with its infotext, and has none
window.recalculate_prompts_inpaint ||= (...values) => recalculate_prompts_img2img(...values);

function recalculate_prompts_fam_hires() {
    return Array.from(arguments);
}

function fam_hires_submit() {
    const values = Array.from(arguments);
    if (typeof randomId !== 'function' || typeof requestProgress !== 'function') {
        return values;
    }
    const id = randomId();
    const row = fam_hires_element('row');
    row.classList.add('fam-busy');
    requestProgress(id, fam_hires_element('gallery_container'), fam_hires_element('gallery'), () => {
        row.classList.remove('fam-busy');
        fam_hires_look_soon();
    });
    values[0] = id;
    return values;
}

// --- what the page says of itself

let famHiresTimer = 0;

function fam_hires_mode() {
    const folder = fam_hires_element('mode_folder');
    return folder && folder.offsetParent !== null ? 'folder' : 'picture';
}

function fam_hires_with_mode() {
    const values = Array.from(arguments);
    values[0] = fam_hires_mode();
    return values;
}

function fam_hires_quiet() {
    clearTimeout(famHiresTimer);
    return Array.from(arguments);
}

function fam_hires_look_soon() {
    clearTimeout(famHiresTimer);
    famHiresTimer = setTimeout(() => {
        fam_hires_element('look').click();
        const folder = fam_hires_element('folder_input textarea');
        if (fam_hires_mode() === 'folder' && folder && folder.value.trim() && !fam_hires_running()) {
            fam_hires_element('list').click();
        }
    }, 600);
    return [];
}

// the lists of presets elsewhere in the page read their files anew
function fam_hires_presets_anew() {
    const ours = ['txt2img_fam_hires_preset_refresh', 'img2img_fam_hires_preset_refresh', 'refresh_fam_default_preset'];
    ours.map((id) => fam_hires_root().querySelector(`#${id}`)).forEach((button) => button && button.click());
    return [];
}

// what the accordion will do
const famHiresSaying = {};

function fam_hires_say_soon(tab) {
    clearTimeout(famHiresSaying[tab]);
    famHiresSaying[tab] = setTimeout(() => fam_hires_root().querySelector(`#${tab}_fam_hires_say`).click(), 300);
    return [];
}

function fam_hires_running() {
    return fam_hires_element('status [data-running]') !== null;
}

// a job goes on without this page: show it after a reload, in a second browser, and where the connection was lost
function fam_hires_watch() {
    let last = '';
    setInterval(() => {
        const status = fam_hires_element('status');
        if (!status || document.hidden || !fam_hires_element('row').offsetParent) {
            return;
        }
        if (!fam_hires_running() || status.innerHTML === last) {
            fam_hires_element('watch').click();
        }
        last = status.innerHTML;
    }, 4000);
    fam_hires_element('watch').click();
}

// a result's button comes with its picture alone
function fam_hires_name_results() {
    fam_hires_root().querySelectorAll('#fam_hires_gallery button').forEach((button, number) => {
        if (!button.textContent.trim() && !button.title) {
            button.setAttribute('aria-label', `Result ${number + 1}`);
        }
    });
}

// help and names for those who hear the page: the tooltips are text that is hidden until it is asked for
function fam_hires_name_parts() {
    fam_hires_root().querySelectorAll('.fam-part').forEach((part, number) => {
        const name = part.querySelector('[data-testid="block-info"]');
        const help = part.querySelector('[data-testid="block-info"] + div, :scope > div:not(.wrap):has(+ label)');
        if (help) {
            help.id = help.id || `fam_hires_help_${number}`;
        }
        part.querySelectorAll('input, textarea').forEach((input) => {
            if (help) {
                input.setAttribute('aria-describedby', help.id);
            }
            if (name) {
                input.setAttribute('aria-label', name.textContent.trim());
            }
        });
    });
    fam_hires_root().querySelectorAll('.fam-fold > .label-wrap').forEach((title) => {
        const said = () => title.setAttribute('aria-expanded', String(title.nextElementSibling.style.display !== 'none'));
        if (!title.hasAttribute('tabindex')) {
            title.tabIndex = 0;
            title.setAttribute('role', 'button');
            title.addEventListener('keydown', (event) => {
                if (event.key === 'Enter' || event.key === ' ') {
                    event.preventDefault();
                    title.click();
                }
            });
            title.addEventListener('click', () => setTimeout(said, 50));
        }
        said();
    });
}

// what an element of ours was asked: the words go into a hidden field, and a hidden button says that they are there
function fam_hires_send(name, words) {
    const field = fam_hires_element(`${name} textarea`);
    field.value = words;
    field.dispatchEvent(new Event('input', { bubbles: true }));
    setTimeout(() => fam_hires_element(`${name}_go`).click(), 100);
}

// the WebUI draws the accordions' switches without a name
function fam_hires_name_switches() {
    ['txt2img', 'img2img'].forEach((tab) => {
        const box = fam_hires_root().querySelector(`#${tab}_fam_hires-visible-checkbox`);
        if (box) {
            box.setAttribute('aria-label', 'FAM Hires');
        }
    });
}

// --- elements: they act wherever the server puts them, and again when it puts them anew

const famHiresTables = {};

class FamFiles extends HTMLElement {
    connectedCallback() {
        this.state = famHiresTables[this.tableId()] ||= { only: '', column: -1, down: false };
        this.show();
        this.onclick = (event) => {
            const button = event.target.closest('button');
            if (!button) {
                return;
            }
            if (button.dataset.key !== undefined) {
                this.compare(button.dataset.key);
            } else if (button.dataset.state !== undefined) {
                this.state.only = button.dataset.state;
            } else {
                const column = Array.from(this.querySelectorAll('th')).indexOf(button.parentElement);
                this.state.down = this.state.column === column && !this.state.down;
                this.state.column = column;
            }
            this.show();
        };
    }

    tableId() {
        const table = this.querySelector('.fam-table');
        return table ? table.id : '';
    }

    show() {
        const { only, column, down } = this.state;
        const body = this.querySelector('tbody');
        const rows = Array.from(body.rows);
        this.querySelectorAll('[data-state]').forEach((one) => {
            if (one.tagName === 'TR') {
                one.hidden = only !== '' && one.dataset.state !== only;
            } else {
                one.setAttribute('aria-pressed', String(one.dataset.state === only));
            }
        });
        this.querySelectorAll('th').forEach((head, index) => {
            head.setAttribute('aria-sort', index !== column ? 'none' : down ? 'descending' : 'ascending');
        });
        if (column >= 0) {
            const text = (row) => row.cells[column].textContent;
            rows.sort((a, b) => text(a).localeCompare(text(b), undefined, { numeric: true }) * (down ? -1 : 1));
            body.append(...rows);
        }
    }

    compare(key) {
        fam_hires_send('pick', key);
    }
}

class FamTrial extends HTMLElement {
    connectedCallback() {
        this.onclick = (event) => {
            const button = event.target.closest('button');
            if (button && button.dataset.key !== undefined) {
                fam_hires_send('pick', button.dataset.key);
            } else if (button) {
                this.querySelectorAll('[data-preset]').forEach((one) => one.setAttribute('aria-pressed', String(one === button)));
                fam_hires_send('take', button.dataset.preset);
            }
        };
    }
}

class FamSaid extends HTMLElement {
    connectedCallback() {
        const field = this.getAttribute('field');
        const known = /^[a-z_]+$/.test(field || '');
        this.marked = known && fam_hires_root().querySelector(`#fam_hires_${field}, #fam_hires_folder_${field}`);
        if (this.marked && this.marked.classList.contains('fam-part')) {
            this.marked.classList.add('fam-bad');
            this.marked.querySelectorAll('input, textarea').forEach((input) => input.setAttribute('aria-invalid', 'true'));
        }
    }

    disconnectedCallback() {
        if (this.marked) {
            this.marked.classList.remove('fam-bad');
            this.marked.querySelectorAll('input, textarea').forEach((input) => input.removeAttribute('aria-invalid'));
        }
    }
}

customElements.get('fam-files') || customElements.define('fam-files', FamFiles);
customElements.get('fam-trial') || customElements.define('fam-trial', FamTrial);
customElements.get('fam-said') || customElements.define('fam-said', FamSaid);

function fam_hires_begin() {
    const row = fam_hires_element('row');
    const script = fam_hires_element('compare_script script');
    if (!row || !script) {
        setTimeout(fam_hires_begin, 300);
        return;
    }
    const compare = document.createElement('script');
    compare.textContent = script.textContent;
    document.head.append(compare);
    fam_hires_name_parts();
    new MutationObserver(fam_hires_name_results).observe(row, { childList: true, subtree: true });
    fam_hires_watch();
    fam_hires_look_soon();
    fam_hires_element('mode').addEventListener('click', fam_hires_look_soon);
    new IntersectionObserver((seen) => seen.some((entry) => entry.isIntersecting) && fam_hires_look_soon()).observe(row);
}

typeof onUiLoaded === 'function' && onUiLoaded(fam_hires_name_switches);
document.readyState === 'loading' ? document.addEventListener('DOMContentLoaded', fam_hires_begin) : fam_hires_begin();
