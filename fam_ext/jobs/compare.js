// <fam-compare>: two pictures of one scene, compared by a slider, a lens at the pointer, or their difference. The same
// file serves the WebUI's tab, report.html and any page of its own. Without it both pictures are simply shown.
// Inside: <img slot="before"> and <img slot="after">; data-scale is shown px / real px of "after", 1 where it is whole.

(() => {
    if (customElements.get('fam-compare')) {
        return;
    }

    const MODES = [['slider', 'Slider'], ['lens', 'Lens'], ['difference', 'Difference']];
    const ZOOMS = [['0', 'Fit'], ['1', '100 %'], ['2', '200 %'], ['4', '400 %']];
    const STYLE = `
        :host { display: block; position: relative; font: 14px/1.4 system-ui, sans-serif; color: inherit; }
        .bar { display: flex; flex-wrap: wrap; gap: 6px; align-items: center; margin-bottom: 6px; }
        button, select { font: inherit; color: inherit; background: transparent; border: 1px solid #888; border-radius: 4px; padding: 3px 10px; min-height: 28px; }
        select option { color: #000; background: #fff; }
        button[aria-pressed="true"] { background: #c2410c; border-color: #c2410c; color: #fff; }
        button:focus-visible, select:focus-visible, .view:focus-visible { outline: 2px solid #2563eb; outline-offset: 1px; }
        .view { overflow: auto; max-height: 80vh; max-width: 100%; position: relative; }
        .stage { position: relative; margin: 0 auto; overflow: hidden; touch-action: none; }
        .stage img { position: absolute; inset: 0; width: 100%; height: 100%; display: block; max-width: none; margin: 0; user-select: none; }
        [data-mode="slider"] .before { clip-path: inset(0 calc(100% - var(--split)) 0 0); }
        [data-mode="slider"] .stage { cursor: ew-resize; }
        .line { display: none; position: absolute; top: 0; bottom: 0; left: var(--split); width: 2px; margin-left: -1px; background: #fff; box-shadow: 0 0 3px #000; pointer-events: none; }
        [data-mode="slider"] .line { display: block; }
        [data-mode="lens"] .before { visibility: hidden; }
        [data-mode="lens"] .stage { cursor: crosshair; }
        [data-mode="difference"] .stage { filter: brightness(3); isolation: isolate; }
        [data-mode="difference"] .before { mix-blend-mode: difference; }
        .label { position: absolute; bottom: 6px; padding: 2px 7px; color: #fff; background: rgba(0, 0, 0, 0.65); border-radius: 4px; pointer-events: none; }
        .label.b { left: 6px; } .label.a { right: 6px; }
        [data-mode="difference"] .label { display: none; }
        .lens { display: none; position: absolute; z-index: 2; pointer-events: none; background: #fff; border: 2px solid #fff; box-shadow: 0 1px 8px #000; }
        [data-mode="lens"] .lens { display: flex; gap: 2px; }
        .lens div { width: var(--lens); height: var(--lens); background-repeat: no-repeat; background-color: #808080; position: relative; }
        .note { margin-left: auto; opacity: 0.85; }`;

    class FamCompare extends HTMLElement {
        connectedCallback() {
            if (this.shadowRoot) {
                return;
            }
            const images = ['before', 'after'].map((name) => this.querySelector(`img[slot="${name}"]`));
            if (images.includes(null)) {
                return;
            }
            const options = ZOOMS.map(([value, words]) => `<option value="${value}">${words}</option>`).join('');
            const buttons = MODES.map(([mode, words]) => `<button type="button" data-mode-of="${mode}">${words}</button>`).join('');
            this.attachShadow({ mode: 'open' }).innerHTML = `<style>${STYLE}</style><div class="all" data-mode="slider">
                <div class="bar" role="group" aria-label="How to compare">${buttons}
                <select aria-label="Zoom">${options}</select><span class="note"></span></div>
                <div class="view" tabindex="0" role="slider" aria-label="Before and after" aria-valuemin="0" aria-valuemax="100">
                <div class="stage"><img class="after" alt="after"><img class="before" alt="before"><div class="line"></div>
                <span class="label b"></span><span class="label a"></span></div></div>
                <div class="lens" aria-hidden="true"><div></div><div></div></div></div>`;
            const find = (selector) => this.shadowRoot.querySelector(selector);
            Object.assign(this, { all: find('.all'), view: find('.view'), stage: find('.stage'), lens: find('.lens') });
            this.sources = images.map((image) => image.src);
            images.forEach((image, index) => {
                find(['.label.b', '.label.a'][index]).textContent = image.alt || ['before', 'after'][index];
            });
            find('.before').src = this.sources[0];
            this.after = find('.after');
            this.after.onload = () => this.lay();
            this.after.src = this.sources[1];
            this.point = [0.5, 0.5];
            this.zoom = 0;
            find('.bar').onclick = (event) => event.target.dataset.modeOf && this.show(event.target.dataset.modeOf);
            find('select').onchange = (event) => {
                this.zoom = Number(event.target.value);
                this.lay();
            };
            this.stage.onpointerdown = (event) => {
                this.stage.setPointerCapture(event.pointerId);
                this.pointAt(event);
            };
            this.stage.onpointermove = (event) => {
                if (event.buttons || this.mode === 'lens') {
                    this.pointAt(event);
                }
            };
            this.view.onkeydown = (event) => this.pressed(event);
            this.view.onscroll = () => this.move();
            new ResizeObserver(() => this.lay()).observe(this);
            this.show('slider');
        }

        show(mode) {
            this.mode = this.all.dataset.mode = mode;
            this.shadowRoot.querySelectorAll('[data-mode-of]').forEach((button) => {
                button.setAttribute('aria-pressed', String(button.dataset.modeOf === mode));
            });
            const scale = Number(this.dataset.scale || 1);
            const whole = scale === 1 ? '1:1' : `a preview at ${Math.round(100 * scale)} %`;
            this.shadowRoot.querySelector('.note').textContent = {
                slider: 'drag, or arrow keys',
                lens: `both at ${whole}; point, or arrow keys`,
                difference: 'what differs is bright, three times as strong',
            }[mode];
            this.move();
        }

        lay() {
            const { naturalWidth: width, naturalHeight: height } = this.after;
            if (!width || !this.clientWidth) {
                return;
            }
            const pixels = window.devicePixelRatio || 1;
            const fit = Math.min(this.clientWidth, (0.75 * window.innerHeight * width) / height);
            const small = Math.max(width, 256); // a very small picture is shown larger
            const wide = this.zoom ? (this.zoom * width) / pixels : Math.min(fit, small);
            this.stage.style.width = `${wide}px`;
            this.stage.style.height = `${(wide * height) / width}px`;
            this.move();
        }

        pointAt(event) {
            const box = this.stage.getBoundingClientRect();
            this.point = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
            this.move();
        }

        pressed(event) {
            const step = event.shiftKey ? 0.1 : 0.01;
            const [x, y] = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] }[event.key] || [];
            if (x === undefined || this.mode === 'difference' || (this.mode === 'slider' && y)) {
                return;
            }
            event.preventDefault();
            event.stopPropagation();
            this.point = [this.point[0] + x, this.point[1] + y];
            this.move();
        }

        move() {
            this.point = this.point.map((part) => Math.min(1, Math.max(0, part)));
            const percent = Math.round(1000 * this.point[0]) / 10;
            this.all.style.setProperty('--split', `${percent}%`);
            this.view.setAttribute('aria-valuenow', String(Math.round(percent)));
            this.view.setAttribute('aria-valuetext', `${Math.round(percent)} % of the width`);
            if (this.mode === 'lens') {
                this.magnify();
            }
        }

        magnify() {
            const pixels = window.devicePixelRatio || 1;
            const width = this.after.naturalWidth / pixels;
            const height = this.after.naturalHeight / pixels;
            const side = Math.max(96, Math.min(240, this.clientWidth / 2 - 12));
            this.lens.style.setProperty('--lens', `${side}px`);
            this.lens.querySelectorAll('div').forEach((glass, index) => {
                glass.style.backgroundImage = `url("${this.sources[index]}")`;
                glass.style.backgroundSize = `${width}px ${height}px`;
                const at = [side / 2 - this.point[0] * width, side / 2 - this.point[1] * height];
                glass.style.backgroundPosition = `${at[0]}px ${at[1]}px`;
            });
            const box = this.stage.getBoundingClientRect();
            const own = this.getBoundingClientRect();
            const x = box.left - own.left + this.point[0] * box.width;
            const y = box.top - own.top + this.point[1] * box.height;
            const most = Math.max(0, own.width - 2 * side - 8);
            this.lens.style.left = `${Math.min(most, Math.max(0, x - side - 4))}px`;
            this.lens.style.top = `${y > side + 60 ? y - side - 20 : y + 24}px`;
        }
    }

    customElements.define('fam-compare', FamCompare);
})();
