// The page of a comparison: everything it shows stands in #data (see page.py). Texts are strangers': textContent only.

(() => {
    const data = JSON.parse(document.getElementById('data').textContent);
    const NATIVE = 'native';
    const COLUMNS = [{ name: NATIVE, title: 'native, enlarged by the browser' }, ...data.methods];
    const COLOURS = 9; // --c0 to --c8
    // their number has no divisor in common with that of the colours: 72 lines differ
    const DASHES = ['2 3', '', '9 4', '4 3', '12 3 2 3', '6 6', '2 5', '14 5'];
    const state = { scale: data.scales[0], row: 0, left: NATIVE, right: '', watched: '', asked: [3, 3], point: [0.5, 0.5], lens: false };
    const element = (name) => document.createElement(name);

    function make(name, attributes = {}, ...inside) {
        const node = element(name);
        Object.entries(attributes).forEach(([key, value]) => node.setAttribute(key, value));
        node.append(...inside);
        return node;
    }

    function draw(name, attributes, ...inside) {
        const node = document.createElementNS('http://www.w3.org/2000/svg', name);
        Object.entries(attributes).forEach(([key, value]) => node.setAttribute(key, value));
        node.append(...inside);
        return node;
    }

    function cellOf(method, row = state.row) {
        const { row: key } = data.rows[row];
        return method === NATIVE ? data.rows[row] : data.cells.find((cell) => cell.row === key && cell.method === method && cell.scale === state.scale);
    }

    // (height, width) of what is compared: the lens shows its pixels one to one
    function targetSize(row) {
        const cell = data.methods.map(({ name }) => cellOf(name, row)).find(Boolean);
        return cell ? cell.size : data.rows[row].size;
    }

    const wordsOf = (scale) => `${scale}x`;
    const secondsOf = (seconds) => (seconds >= 100 ? `${Math.round(seconds)} s` : `${seconds.toFixed(1)} s`);
    const memoryOf = (bytes) => (bytes == null ? 'not measured' : `${(bytes / 2 ** 30).toFixed(2)} GiB`);
    // "hidiffusion+fam" may end a line behind its +
    const broken = (name) => name.split('+').flatMap((part, index) => (index ? ['+', element('wbr'), part] : [part]));
    const shortOf = (text) => (text.length > 70 ? `${text.slice(0, 69)}…` : text);

    // --- the grid, and the lens over all methods of a row

    const table = make('table', { class: 'grid', role: 'grid', 'aria-label': 'Pictures by methods', 'aria-describedby': 'how' });
    let lenses = [];

    function showGrid() {
        const head = make('tr', { role: 'row' });
        COLUMNS.forEach(({ name, title }) => head.append(make('th', { scope: 'col', role: 'columnheader', title }, ...broken(name))));
        table.replaceChildren(make('thead', { role: 'rowgroup' }, head));
        table.style.minWidth = `${COLUMNS.length * 132}px`;
        data.rows.forEach((native, row) => {
            const [height, width] = targetSize(row);
            const name = make('th', { colspan: COLUMNS.length, scope: 'rowgroup', role: 'rowheader' }, shortOf(native.title));
            name.append(make('span', { class: 'caption' }, `${native.size[1]} x ${native.size[0]} to ${width} x ${height} px, seed ${native.seed}`));
            const line = make('tr', { role: 'row' });
            COLUMNS.forEach((column, index) => line.append(gridCell(row, index)));
            table.append(make('tbody', { role: 'rowgroup' }, make('tr', { role: 'row' }, name), line));
        });
        setRoving(state.row, 0);
    }

    function gridCell(row, column) {
        const { name } = COLUMNS[column];
        const cell = cellOf(name, row);
        const node = make('td', { role: 'gridcell', tabindex: -1, 'data-row': row, 'data-column': column });
        node.onfocus = () => lensAt(row, state.point);
        if (!cell || !cell.src) {
            node.append(make('span', { class: 'problem' }, cell ? cell.problem || 'the file is gone' : 'not made at this scale'));
            return node;
        }
        const frame = make('div', { class: 'frame' }, make('img', { src: cell.src, alt: `${name}: ${shortOf(data.rows[row].title)}`, width: cell.size[1], height: cell.size[0] }));
        node.append(frame, make('span', { class: 'caption' }, captionOf(name, cell)));
        frame.onpointermove = (event) => event.pointerType === 'mouse' && lensTo(row, frame, event);
        frame.onpointerdown = (event) => lensTo(row, frame, event);
        return node;
    }

    function captionOf(name, cell) {
        if (name === NATIVE) {
            return cell.seconds == null ? 'as given' : secondsOf(cell.seconds);
        }
        const parts = [secondsOf(cell.seconds)];
        if (cell.structure != null) {
            parts.push(`structure ${cell.structure.toFixed(1)} dB`);
        }
        return [...parts, ...cell.notes].join(', ');
    }

    function lensTo(row, frame, event) {
        const box = frame.getBoundingClientRect();
        lensAt(row, [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height]);
    }

    function lensAt(row, point) {
        state.lens = true;
        state.point = point.map((part) => Math.min(1, Math.max(0, part)));
        if (state.row !== row || !lenses.length) {
            lenses.forEach((lens) => lens.remove());
            lenses = [];
            table.querySelectorAll(`td[data-row="${row}"] .frame`).forEach((frame) => {
                const lens = make('canvas', { class: 'lens', 'aria-hidden': 'true' });
                lens.onpointerdown = (event) => lens.setPointerCapture(event.pointerId);
                lens.onpointermove = (event) => {
                    if (event.buttons || event.pointerType === 'mouse') {
                        event.stopPropagation();
                        lensTo(row, frame, event);
                    }
                };
                frame.append(lens);
                lenses.push(lens);
            });
            table.querySelectorAll('tbody').forEach((body, index) => body.classList.toggle('on', index === row));
        }
        if (state.row !== row) {
            state.row = row;
            showRow();
        }
        drawLenses();
    }

    function drawLenses() {
        const [height, width] = targetSize(state.row);
        const pixels = window.devicePixelRatio || 1;
        lenses.forEach((lens) => {
            const frame = lens.parentElement;
            const image = frame.firstElementChild;
            const side = Math.round(Math.max(72, Math.min(220, 0.5 * frame.clientWidth)));
            lens.style.width = lens.style.height = `${side}px`;
            lens.width = lens.height = Math.round(side * pixels);
            lens.style.left = `${Math.min(frame.clientWidth - side, Math.max(0, state.point[0] * frame.clientWidth - side / 2))}px`;
            lens.style.top = `${Math.min(frame.clientHeight - side, Math.max(0, state.point[1] * frame.clientHeight - side / 2))}px`;
            const context = lens.getContext('2d');
            context.imageSmoothingQuality = 'high';
            // the whole picture at the target's pixels, moved so that the point lies in the middle
            context.drawImage(image, lens.width / 2 - state.point[0] * width, lens.height / 2 - state.point[1] * height, width, height);
        });
    }

    function setRoving(row, column, focus = false) {
        table.querySelectorAll('td[tabindex="0"]').forEach((node) => node.setAttribute('tabindex', -1));
        const node = table.querySelector(`td[data-row="${row}"][data-column="${column}"]`);
        node.setAttribute('tabindex', 0);
        if (focus) {
            node.focus();
        }
    }

    const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

    table.onkeydown = (event) => {
        const node = event.target.closest('td');
        if (!node) {
            return;
        }
        const [row, column] = [Number(node.dataset.row), Number(node.dataset.column)];
        const [x, y] = STEPS[event.key] || [];
        if (x !== undefined && event.shiftKey) {
            lensAt(row, [state.point[0] + x / 40, state.point[1] + y / 40]);
        } else if (x !== undefined) {
            setRoving(Math.min(data.rows.length - 1, Math.max(0, row + y)), Math.min(COLUMNS.length - 1, Math.max(0, column + x)), true);
        } else if (event.key === 'Home' || event.key === 'End') {
            setRoving(row, event.key === 'Home' ? 0 : COLUMNS.length - 1, true);
        } else if (event.key === 'Enter' || event.key === ' ') {
            openPair(row, column);
        } else {
            return;
        }
        event.preventDefault();
    };
    table.onclick = (event) => {
        const node = event.target.closest('td');
        if (node) {
            setRoving(Number(node.dataset.row), Number(node.dataset.column), true);
        }
    };
    table.ondblclick = (event) => {
        const node = event.target.closest('td');
        if (node) {
            openPair(Number(node.dataset.row), Number(node.dataset.column));
        }
    };

    function openPair(row, column) {
        lensAt(row, state.point);
        if (column) {
            state.right = COLUMNS[column].name;
        }
        showRow();
        const opened = pair;
        const show = () => opened.scrollIntoView({ block: 'nearest' });
        show();
        if (state.left) {
            opened.after.addEventListener('load', show); // until then it has no height
        }
        const view = pair.shadowRoot && pair.shadowRoot.querySelector('.view');
        if (view) {
            view.focus();
        }
    }

    // --- choices that several parts share

    function choice(label, entries, get, set) {
        const box = make('select', { 'aria-label': label });
        const refresh = () => {
            box.replaceChildren(...entries().map(([value, words]) => make('option', { value }, words)));
            box.value = String(get());
        };
        box.onchange = () => {
            set(box.value);
            showRow();
        };
        choices.push(refresh);
        return make('label', {}, make('span', { 'aria-hidden': 'true' }, label), box);
    }

    const choices = [];
    const rowChoice = () =>
        choice('Picture', () => data.rows.map((native, row) => [row, shortOf(native.title)]), () => state.row, (value) => lensAt(Number(value), state.point));
    const made = () => COLUMNS.filter(({ name }) => (cellOf(name) || {}).src).map(({ name }) => [name, name]);

    // --- two of them, with the element of compare.js

    let pair = make('div');

    function showPair() {
        const [height, width] = targetSize(state.row);
        const next = element(state.left ? 'fam-compare' : 'p');
        if (state.left) {
            [['before', state.left], ['after', state.right]].forEach(([slot, method]) => next.append(make('img', { slot, alt: method, src: cellOf(method).src })));
            next.title = `${width} x ${height} px`;
        } else {
            next.append('There is no picture of this row at this scale.');
        }
        pair.replaceWith(next);
        pair = next;
    }

    // --- numbers

    const numbers = make('table', { class: 'numbers' });
    const settings = make('ul', { class: 'soft', 'aria-label': 'What each was made with' });

    // 'fam: preset balanced, sampler DDIM, ...', once where all of a method's pictures have the same
    function settingsOf(cells) {
        const words = cells.filter((cell) => cell.settings).map((cell) => {
            const said = Object.entries(cell.settings).filter(([, value]) => value !== null && value !== '');
            return [...said.map((pair) => pair.join(' ')), ...(cell.upscaler ? [`upscaler ${cell.upscaler}`] : [])].join(', ');
        });
        return [...new Set(words)].join(' | ');
    }

    function showNumbers() {
        const heads = ['method', 'pictures', 'steps', 'time, mean', 'shortest to longest', 'peak memory', 'structure kept', 'detail above native'];
        const head = make('tr', {}, ...heads.map((words) => make('th', { scope: 'col' }, words)));
        const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
        const lines = data.methods.map(({ name, title }) => {
            const tried = data.cells.filter((cell) => cell.method === name && cell.scale === state.scale);
            const cells = tried.filter((cell) => cell.src);
            const line = make('tr', {}, make('th', { scope: 'row', title }, name));
            if (!cells.length) {
                line.append(make('td', { colspan: heads.length - 1 }, tried.length ? 'could not be made' : 'not made at this scale'));
                return line;
            }
            const times = cells.map((cell) => cell.seconds);
            const kept = cells.map((cell) => cell.structure).filter((value) => value != null);
            const peaks = cells.map((cell) => cell.peak_memory).filter((value) => value != null);
            const texts = [
                cells.length,
                [...new Set(cells.map((cell) => cell.steps))].join(', '),
                secondsOf(mean(times)),
                `${secondsOf(Math.min(...times))} to ${secondsOf(Math.max(...times))}`,
                memoryOf(peaks.length ? Math.max(...peaks) : null),
                kept.length ? `${mean(kept).toFixed(1)} dB` : 'equal',
                `${mean(cells.map((cell) => cell.detail)).toFixed(2)} %`,
            ];
            line.append(...texts.map((text) => make('td', {}, String(text))));
            return line;
        });
        numbers.replaceChildren(make('thead', {}, head), make('tbody', {}, ...lines));
        const made = data.methods.map(({ name }) => [name, settingsOf(data.cells.filter((cell) => cell.method === name && cell.scale === state.scale && cell.src))]);
        settings.replaceChildren(...made.filter(([, words]) => words).map((line) => make('li', {}, line.join(': '))));
    }

    // --- spectra

    const spectra = make('div', { class: 'spectra' });

    function showSpectra() {
        const lines = COLUMNS.map(({ name }, index) => ({ name, index, spectrum: (cellOf(name) || {}).spectrum })).filter((line) => line.spectrum && line.spectrum.power.some((power) => power > 0));
        if (!lines.length) {
            spectra.replaceChildren(make('p', {}, state.left ? 'Flat: there is nothing at any size of detail.' : 'There is no picture of this row at this scale.'));
            return;
        }
        const wide = Math.max(340, Math.min(720, spectra.clientWidth)); // its text stays as large as the page's
        const [high, left, bottom] = [380, 52, 46];
        const every = lines.flatMap(({ spectrum }) => spectrum.power.filter((power) => power > 0));
        const logs = [Math.floor(Math.log10(Math.min(...every))), Math.ceil(Math.log10(Math.max(...every)))];
        logs[1] = Math.max(logs[1], logs[0] + 1);
        const most = Math.log10(Math.max(...lines.flatMap(({ spectrum }) => spectrum.cycles)));
        const xOf = (cycles) => left + (Math.log10(cycles) / most) * (wide - left - 16);
        const yOf = (power) => 12 + ((logs[1] - Math.log10(power)) / (logs[1] - logs[0])) * (high - bottom - 12);
        const picture = draw('svg', { viewBox: `0 0 ${wide} ${high}`, width: wide, height: high, role: 'img', 'aria-label': `Power spectra of ${lines.map(({ name }) => name).join(', ')}` });
        for (let power = logs[0]; power <= logs[1]; power += Math.ceil((logs[1] - logs[0]) / 7)) {
            const y = yOf(10 ** power);
            picture.append(draw('path', { class: 'axis', d: `M${left} ${y}H${wide - 16}` }), draw('text', { x: left - 8, y: y + 4, 'text-anchor': 'end' }, `1e${power}`));
        }
        [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000].filter((cycles) => Math.log10(cycles) <= most && (wide > 500 || cycles % 3 === 1)).forEach((cycles) => {
            const x = xOf(cycles);
            picture.append(draw('path', { class: 'axis', d: `M${x} 12V${high - bottom}` }), draw('text', { x, y: high - bottom + 18, 'text-anchor': 'middle' }, String(cycles)));
        });
        picture.append(draw('text', { x: (left + wide) / 2, y: high - 8, 'text-anchor': 'middle' }, 'cycles per shorter side'));
        lines.forEach(({ index, spectrum }) => {
            const points = spectrum.cycles.map((cycles, at) => [cycles, spectrum.power[at]]).filter(([, power]) => power > 0);
            picture.append(draw('path', { class: 'line', d: `M${points.map(([cycles, power]) => `${xOf(cycles).toFixed(1)} ${yOf(power).toFixed(1)}`).join('L')}`, ...look(index) }));
        });
        const keys = make('ul', { class: 'keys' });
        lines.forEach(({ name, index }) => {
            const sample = draw('svg', { width: 40, height: 10, viewBox: '0 0 40 10', 'aria-hidden': 'true' }, draw('path', { class: 'line', d: 'M0 5H40', ...look(index) }));
            keys.append(make('li', {}, sample, name));
        });
        spectra.replaceChildren(picture, keys);
    }

    const look = (index) => ({ style: `stroke: var(--c${index % COLOURS})`, 'stroke-dasharray': DASHES[index % DASHES.length] });

    // --- attention of a point

    const watched = () => data.methods.filter(({ name }) => (cellOf(name) || {}).attention).map(({ name }) => [name, name]);
    const maps = make('div');
    const asked = make('div', { class: 'frame asked', tabindex: 0, role: 'application', 'aria-label': 'Point that is asked: arrow keys or a click', 'aria-describedby': 'told' });
    const canvases = ['native map', 'target map', 'modulated map'].map((name) => ({ name, canvas: make('canvas', { role: 'img', 'aria-label': name }), says: make('figcaption') }));
    const told = make('p', { id: 'told', class: 'soft', 'aria-live': 'polite' });
    const sheet = new Image();

    function showAttention() {
        const cell = cellOf(state.watched);
        attentionPart.hidden = !watched().length;
        noAttention.hidden = !attentionPart.hidden;
        if (!cell || !cell.attention) {
            return;
        }
        maps.style.setProperty('--aspect', `${cell.size[1]} / ${cell.size[0]}`);
        asked.replaceChildren(make('img', { src: cell.src, alt: `${state.watched}: ${shortOf(data.rows[state.row].title)}` }), make('span', { class: 'point' }));
        const { site, step, rho } = cell.attention;
        says.textContent = `Recorded at step ${step} of ${cell.steps} (t / T ${rho.toFixed(2)}), at ${site}, mean of all heads.`;
        sheet.onload = drawMaps;
        sheet.src = cell.attention.src;
        if (sheet.complete) {
            drawMaps();
        }
    }

    function drawMaps() {
        const { attention } = cellOf(state.watched) || {};
        if (!attention || !sheet.naturalWidth) {
            return;
        }
        const [column, row] = state.asked;
        const sizes = [attention.native, attention.target, attention.target];
        const tall = Math.max(...sizes.map(([height]) => height));
        let x = column * sizes.reduce((sum, [, width]) => sum + width, 0);
        const peak = attention.peaks[row * attention.queries + column];
        canvases.forEach(({ name, canvas, says: caption }, index) => {
            const [height, width] = sizes[index];
            Object.assign(canvas, { width, height });
            const context = canvas.getContext('2d', { willReadFrequently: true });
            context.drawImage(sheet, x, row * tall, width, height, 0, 0, width, height);
            const pixels = context.getImageData(0, 0, width, height);
            let most = 0;
            for (let at = 0; at < pixels.data.length; at += 4) {
                const value = pixels.data[at] / 255;
                most = Math.max(most, value);
                pixels.data.set(heat(value), at);
            }
            context.putImageData(pixels, 0, 0);
            caption.textContent = `${name}, ${width} x ${height}: up to ${(most * most * peak).toFixed(1)} times the mean`;
            canvas.setAttribute('aria-label', caption.textContent);
            x += width;
        });
        const place = state.asked.map((at) => (100 * (at + 0.5)) / attention.queries);
        maps.querySelectorAll('.point').forEach((point) => {
            point.style.left = `${place[0]}%`;
            point.style.top = `${place[1]}%`;
        });
        told.textContent = `Column ${column + 1}, row ${row + 1} of ${attention.queries} x ${attention.queries} points.`;
    }

    // black, violet, orange, white: its lightness grows with the value
    const HEAT = [[0, 0, 4], [80, 18, 123], [183, 55, 121], [252, 137, 97], [252, 253, 191]];

    function heat(value) {
        const at = Math.min(value, 0.9999) * (HEAT.length - 1);
        const [low, high, share] = [HEAT[Math.floor(at)], HEAT[Math.floor(at) + 1], at % 1];
        return low.map((part, index) => part + share * (high[index] - part));
    }

    function ask(column, row) {
        const { attention } = cellOf(state.watched) || {};
        const last = attention ? attention.queries - 1 : 0;
        state.asked = [column, row].map((at) => Math.min(last, Math.max(0, at)));
        drawMaps();
    }

    asked.onclick = (event) => {
        const { attention } = cellOf(state.watched) || {};
        const box = asked.getBoundingClientRect();
        if (attention) {
            ask(Math.floor(((event.clientX - box.left) / box.width) * attention.queries), Math.floor(((event.clientY - box.top) / box.height) * attention.queries));
        }
    };
    asked.onkeydown = (event) => {
        const [x, y] = STEPS[event.key] || [];
        if (x !== undefined) {
            event.preventDefault();
            ask(state.asked[0] + x, state.asked[1] + y);
        }
    };

    // --- the page

    function showRow() {
        const names = made().map(([name]) => name);
        state.left = names.includes(state.left) ? state.left : names[0];
        state.right = names.includes(state.right) ? state.right : names[names.length - 1];
        const seen = watched().map(([name]) => name);
        state.watched = seen.includes(state.watched) ? state.watched : seen[0] || '';
        choices.forEach((refresh) => refresh());
        showPair();
        showSpectra();
        showAttention();
    }

    function showScale() {
        lenses = [];
        showGrid();
        showNumbers();
        showRow();
        if (state.lens) {
            lensAt(state.row, state.point);
        }
    }

    const scales = make('fieldset', {}, make('legend', {}, 'Scale'));
    data.scales.forEach((scale) => {
        const box = make('input', { type: 'radio', name: 'scale', value: scale });
        box.checked = scale === state.scale;
        box.onchange = () => {
            state.scale = scale;
            showScale();
        };
        scales.append(make('label', {}, box, wordsOf(scale)));
    });
    const says = make('p', { class: 'soft' });
    maps.className = 'maps';
    maps.append(make('figure', {}, asked, make('figcaption', {}, 'the picture, and the point that is asked')));
    canvases.forEach(({ canvas, says: caption }) => maps.append(make('figure', {}, make('div', { class: 'frame' }, canvas, make('span', { class: 'point' })), caption)));
    const attentionPart = make('div', {}, make('div', { class: 'bar' }, rowChoice(), choice('Method', watched, () => state.watched, (value) => { state.watched = value; })), says, maps, told,
        make('p', { class: 'soft' }, 'Bright is where the point attends to; brightness is the square root of the weight, on one scale for the three. The modulated map is what the network used: a share of the native map, enlarged, and the rest of the target’s own.'));
    const noAttention = make('p', { class: 'soft' }, 'No method at this scale attends to a native map.');
    const { model, device, dtype } = data.machine;

    document.body.append(
        make('main', {},
            make('h1', {}, 'Methods side by side'),
            make('p', { class: 'soft' }, `${model}, ${device}, ${dtype}. Shown in ${data.pictures}; the full PNGs and results.json lie beside this page.`),
            make('div', { class: 'bar' }, scales),
            make('p', { class: 'soft', id: 'how' }, 'Point at a picture, or tap it: the lens shows the pixels of that place one to one, by every method. Keys: arrows go from picture to picture, Shift and arrows move the lens, Enter puts the picture beside another.'),
            make('div', { class: 'wide' }, table),
            make('h2', {}, 'Two of them'),
            make('div', { class: 'bar' }, rowChoice(), choice('Left', made, () => state.left, (value) => { state.left = value; }), choice('Right', made, () => state.right, (value) => { state.right = value; })),
            pair,
            make('h2', {}, 'Time and memory'),
            make('p', { class: 'soft' }, 'Each picture was made once, one after the other; the first after the start is slower. Structure kept: the picture, made small again, against the native one (PSNR). Detail above native: the share of the variance that is finer than the native picture can hold.'),
            make('div', { class: 'wide', tabindex: 0, role: 'region', 'aria-label': 'Time and memory' }, numbers),
            settings,
            make('h2', {}, 'Spectra'),
            make('div', { class: 'bar' }, rowChoice()),
            make('p', { class: 'soft' }, 'Mean power of the grey levels by frequency, both on log scales. The native picture ends at half its side.'),
            spectra,
            make('h2', {}, 'Attention of a point'),
            attentionPart,
            noAttention,
        ),
    );
    showScale();
    new ResizeObserver(drawLenses).observe(table);
    new ResizeObserver(showSpectra).observe(document.querySelector('main'));
})();
