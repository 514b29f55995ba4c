"""The language of a text: right where one is told, and none told where it is not certain."""

# ruff: noqa: RUF001 - sentences as they are written

from __future__ import annotations

import pytest

from leastwise.cascade.languages import codes, language_of

SENTENCES = {
    "ar": "يجب تسليم التقرير يوم الجمعة ولم يبدأ أحد في كتابته حتى هذا الوقت",
    "bg": "Докладът трябва да бъде готов в петък, но още никой не е започнал да го пише.",
    "cs": "Server lze znovu spustit z nabídky, ale trvá to několik minut a není to vždy nutné.",
    "da": "Hvad er der blevet af den sidste del af mødet, og hvad skal vi gøre efter det?",
    "de": "Bitte starten Sie den Server neu und prüfen Sie, ob der Fehler noch auftritt.",
    "el": "Η αναφορά πρέπει να παραδοθεί την Παρασκευή.",
    "en": "You can restart the server from the menu, but it will take a few minutes.",
    "es": "Puede reiniciar el servidor desde el menú, pero tarda unos minutos.",
    "fa": "این گزارش باید تا جمعه آماده شود اما هنوز کسی آن را شروع نکرده است",
    "fi": "Raportin pitäisi olla valmis perjantaina, mutta kukaan ei ole vielä aloittanut sitä.",
    "fr": "Vous pouvez redémarrer le serveur depuis le menu, mais cela prend quelques minutes.",
    "he": "הדוח צריך להיות מוכן ביום שישי ואיש עוד לא התחיל לכתוב.",
    "hi": "रिपोर्ट शुक्रवार तक तैयार होनी है और अभी तक किसी ने इस पर काम शुरू नहीं किया है।",
    "id": "Laporan ini harus selesai pada hari Jumat dan belum ada yang mulai menulis.",
    "it": "La riunione di domani è stata annullata per mancanza di tempo.",
    "ja": "報告書は金曜日までに提出する必要がありますが、まだ誰も書き始めていません。",
    "ko": "보고서는 금요일까지 제출해야 하지만 아직 아무도 시작하지 않았습니다.",
    "mr": "अहवाल शुक्रवारी तयार व्हायला हवा आहे आणि अजून कोणीही ते काम सुरू केले नाही.",
    "nl": "Het rapport moet vrijdag af zijn en nog niemand is eraan begonnen.",
    "no": "Hva ble det av den siste delen av møtet, og hva skal vi gjøre etter det?",
    "pl": "Raport ma być gotowy w piątek, ale nikt jeszcze nie zaczął go pisać.",
    "pt": "Você pode reiniciar o servidor pelo menu, mas isso leva alguns minutos.",
    "ro": "Puteți reporni serverul din meniu, dar durează câteva minute și nu este mereu nevoie.",
    "ru": "Сервер можно перезапустить из меню, но это займёт несколько минут.",
    "sv": "Du kan starta om servern från menyn, men det tar några minuter.",
    "th": "รายงานต้องส่งภายในวันศุกร์ แต่ยังไม่มีใครเริ่มเขียนเลย",
    "tr": "Sunucuyu menüden yeniden başlatabilirsiniz, ancak bu birkaç dakika sürer ve her zaman gerekmez.",
    "uk": "Сервер можна перезапустити з меню, але це займе кілька хвилин.",
    "ur": "یہ رپورٹ جمعہ تک مکمل ہونی ہے اور ابھی تک کسی نے اس پر کام شروع نہیں کیا",
    "zh": "报告必须在星期五之前交，但是还没有人开始写。",
}


@pytest.mark.parametrize("code", SENTENCES)
def test_a_sentence_tells_its_language(code: str) -> None:
    assert code == language_of(SENTENCES[code])


def test_each_language_that_can_be_told_is_shown_here() -> None:
    assert tuple(SENTENCES) == codes()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ok",
        "42, 17 and 99",
        "Paris, Berlin, Madrid, Bern and London",
        "Rapporten skal være ferdig på fredag.",  # Danish but for one letter
        "これ",
        "報告書必須金曜日提出の件",  # a little kana
        "Զեկույցը պետք է պատրաստ լինի ուրբաթ օրը, բայց դեռ ոչ ոք չի սկսել։",  # a script that is not listed
        "L'informe s'ha de lliurar divendres i ningú no ha començat a escriure'l encara.",  # Catalan
        "A jelentésnek péntekre kell elkészülnie, de még senki sem kezdte el írni.",  # Hungarian
        f"{SENTENCES['en']} {SENTENCES['ru']}",
    ],
)
def test_what_is_not_certain_is_not_told(text: str) -> None:
    assert "" == language_of(text)


def test_code_and_foreign_terms_do_not_matter() -> None:
    code = "```\nfor the item in the list of items: print(the_item) and return to the start\n```"

    assert "de" == language_of(f"{SENTENCES['de']}\n{code}")
    assert "zh" == language_of("使用 Python 的 asyncio 库可以让服务器同时处理多个请求")
    assert "" == language_of(code)
